#include "fetch/fetch.h"

#include "base/panic.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct fetcher {
    CURL *curl;
    char *url;
    time_us timeout_us;
    struct strbuf *out; /* of the request under way */
    char reason[CURL_ERROR_SIZE];
};

static void initialise(void)
{
    ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
}

static size_t take(char *data, size_t one, size_t bytes, void *context)
{
    struct fetcher *f = context;
    (void)one; /* is 1 */
    strbuf_append(f->out, data, bytes);
    return f->out->failed ? 0 : bytes; /* anything but all of it ends the transfer */
}

/* A URL of the kinds that are spoken, with a host. */
static enum err check_url(const char *url, struct error *e)
{
    char *scheme = NULL;
    CURLU *parts = curl_url();
    bool good = parts != NULL && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);
    curl_free(scheme);
    curl_url_cleanup(parts);
    return good ? OK
                : error_set(e, ERR_INVALID, "expected a URL such as http://HOST:PORT, found \"%s\"",
                            url);
}

static enum err set_up(struct fetcher *f, struct error *e)
{
    static const char agent[] = "shoal/" SHOAL_VERSION;
    CURL *c = f->curl;
    bool good = curl_easy_setopt(c, CURLOPT_URL, f->url) == CURLE_OK &&
                curl_easy_setopt(c, CURLOPT_USERAGENT, agent) == CURLE_OK &&
                curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
                curl_easy_setopt(c, CURLOPT_NOPROXY, "*") == CURLE_OK &&
                curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)(f->timeout_us / 1000)) == CURLE_OK &&
                curl_easy_setopt(c, CURLOPT_ERRORBUFFER, f->reason) == CURLE_OK &&
                curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take) == CURLE_OK &&
                curl_easy_setopt(c, CURLOPT_WRITEDATA, f) == CURLE_OK;
    return good ? OK : error_set(e, ERR_MEMORY, "no memory for a connection to %s", f->url);
}

enum err fetcher_open(const char *url, time_us timeout_us, struct fetcher **out, struct error *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    *out = NULL;
    pthread_once(&once, initialise);
    enum err err = check_url(url, e);
    struct fetcher *f = err == OK ? calloc(1, sizeof *f) : NULL;
    if (err != OK)
        return err;
    if (f == NULL || (f->url = strdup(url)) == NULL || (f->curl = curl_easy_init()) == NULL) {
        fetcher_close(f);
        return error_set(e, ERR_MEMORY, "no memory for a connection to %s", url);
    }
    f->timeout_us = timeout_us;
    err = set_up(f, e);
    if (err != OK) {
        fetcher_close(f);
        return err;
    }
    *out = f;
    return OK;
}

void fetcher_close(struct fetcher *f)
{
    if (f == NULL)
        return;
    if (f->curl != NULL)
        curl_easy_cleanup(f->curl);
    free(f->url);
    free(f);
}

/* What libcurl's code means here. */
static enum err failure(const struct fetcher *f, CURLcode code, struct error *e)
{
    const char *why = f->reason[0] != 0 ? f->reason : curl_easy_strerror(code);
    if (f->out->failed)
        return error_set(e, ERR_LIMIT, "%s: the answer is longer than %zu bytes", f->url,
                         f->out->max_bytes);
    if (code == CURLE_OPERATION_TIMEDOUT)
        return error_set(e, ERR_TIMEOUT, "%s: no answer within %.1f s", f->url,
                         (double)f->timeout_us / 1e6);
    return error_set(e, ERR_UNREACHABLE, "%s: %s", f->url, why);
}

enum err fetcher_get(struct fetcher *f, struct strbuf *out, struct error *e)
{
    long status = 0;
    f->out = out;
    f->reason[0] = 0;
    CURLcode code = curl_easy_perform(f->curl);
    if (code != CURLE_OK)
        return failure(f, code, e);
    curl_easy_getinfo(f->curl, CURLINFO_RESPONSE_CODE, &status);
    return status == 200
               ? OK
               : error_set(e, ERR_IO, "%s: expected status 200, found %ld", f->url, status);
}
