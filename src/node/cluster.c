/* Connecting: describe all. Assigning: check, serve tensors, assign all, link, wait until the ring
 * is closed.
 *
 * Each node has a control channel (unary calls) and a channel for its Forward stream. The streams
 * carry the steps to stage 0 and the hidden states from the last stage; those to the others carry
 * nothing, but tell both ends at once when the other dies. */
#include "node/cluster.h"

#include "base/bounds.h"
#include "base/log.h"
#include "base/panic.h"
#include "base/size.h"
#include "link/grpc/link_grpc.h"
#include "node/client.h"
#include "node/messages.h"
#include "node/tensor_fetch.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    DESCRIBE_US = 4500 * 1000, /* an unreachable node fails the opening within 5 s */
    STATS_US = 2000 * 1000,
    UNASSIGN_US = 3000 * 1000,
    RING_US = 10 * 1000 * 1000, /* to close the ring once all is loaded */
    PROGRESS_US = 100 * 1000,
    PRESENCE_US =
        1000 * 1000, /* between two signs to workers that have loaded and wait for others */
    RING_POLL_US = 5 * 1000,
};

struct member {
    struct cluster *cluster;
    struct node_info info;
    struct node_description description;
    struct rpc_channel *control, *activations;
    struct link_grpc *link;
    const struct plan_stage *stage; /* NULL: not part of the plan */
    int stage_i;
    struct tensor_list tensors;
    uint64_t tensor_bytes;
    bool is_assigned; /* or may be: an Assign was sent */
    pthread_t thread;
    bool has_thread;
    _Atomic bool is_done; /* the thread's work */
    struct error error;
};

struct cluster {
    struct cluster_options o; /* once assigned */
    struct rpc_loop *loop;
    struct rpc_server *server; /* answers FetchTensors; NULL: none */
    struct inbox *inbox;
    struct member *members;
    int n_members;

    pthread_mutex_t lock;
    bool is_closing;
    bool has_failed;
    struct error failure;
};

static const char *address_of(const struct member *m)
{
    return m->info.address;
}

/* The member that computes stage stage_i; NULL: the lead does. */
static struct member *member_of(struct cluster *c, int stage_i)
{
    const struct plan *p = c->o.plan;
    return stage_i < p->n_stages - 1 ? &c->members[p->stages[stage_i].node_i] : NULL;
}

/* ---- failures ---- */

static void link_is_down(void *context, const struct error *reason)
{
    struct cluster *c = context;
    pthread_mutex_lock(&c->lock);
    if (!c->is_closing && !c->has_failed) {
        c->has_failed = true;
        c->failure = *reason;
    }
    pthread_mutex_unlock(&c->lock);
}

enum err cluster_check(struct cluster *c, struct error *e)
{
    pthread_mutex_lock(&c->lock);
    enum err err = c->has_failed ? c->failure.code : OK;
    if (err != OK && e != NULL)
        *e = c->failure;
    pthread_mutex_unlock(&c->lock);
    return err;
}

/* ---- do something with all nodes at the same time ---- */

static void for_all(struct cluster *c, void *(*work)(void *member))
{
    for (int i = 0; i < c->n_members; i++) {
        struct member *m = &c->members[i];
        m->is_done = false;
        m->error = (struct error){.code = OK};
        m->has_thread = pthread_create(&m->thread, NULL, work, m) == 0;
        if (!m->has_thread)
            work(m);
    }
}

static bool all_done(struct cluster *c)
{
    bool done = true;
    for (int i = 0; i < c->n_members; i++)
        done &= c->members[i].is_done;
    return done;
}

/* Wait for for_all; the first failure in the order of the nodes. */
static enum err join_all(struct cluster *c, struct error *e)
{
    enum err err = OK;
    for (int i = 0; i < c->n_members; i++) {
        struct member *m = &c->members[i];
        if (m->has_thread)
            pthread_join(m->thread, NULL);
        m->has_thread = false;
        if (err == OK && m->error.code != OK) {
            err = m->error.code;
            if (e != NULL)
                *e = m->error;
        }
    }
    return err;
}

/* ---- checks ---- */

static enum err check_version(const struct member *m, struct error *e)
{
    const struct node_description *d = &m->description;
    if (strcmp(d->version, SHOAL_VERSION) == 0 && d->protocol == NODE_PROTOCOL)
        return OK;
    return error_set(e, ERR_VERSION,
                     "node %s runs Shoal %s (protocol %d), this is %s (protocol %d)", address_of(m),
                     d->version, d->protocol, SHOAL_VERSION, NODE_PROTOCOL);
}

static enum err check_numerics(const struct member *m, const char *own, struct error *e)
{
    if (strcmp(m->description.numerics_id, own) == 0)
        return OK;
    return error_set(e, ERR_MISMATCH,
                     "node %s computes with numerics %s, this with %s: results "
                     "would depend on the plan",
                     address_of(m), m->description.numerics_id, own);
}

/* Packed weights are about as large as the file's. What the node holds now goes before. */
static enum err check_memory(const struct cluster *c, const struct member *m,
                             const struct model_params *p, struct error *e)
{
    uint64_t block = kv_block_bytes(c->o.kv_type, p->n_kv_heads, p->head_size);
    uint64_t blocks = (uint64_t)c->o.n_blocks * (uint64_t)(m->stage->last - m->stage->first);
    uint64_t need, have = m->description.memory_available;
    if (m->description.epoch != 0 || have == 0)
        return OK;
    if (size_mul(blocks, block, &need) && size_add(need, m->tensor_bytes, &need) && need <= have)
        return OK;
    return error_set(e, ERR_LIMIT, "node %s has %llu MB of memory free, layers %d-%d need %llu MB",
                     address_of(m), (unsigned long long)(have >> 20), m->stage->first,
                     m->stage->last - 1, (unsigned long long)(need >> 20));
}

static void *describe_member(void *context)
{
    struct member *m = context;
    enum err err = node_describe(m->control, DESCRIBE_US, &m->description, &m->error);
    if (err == ERR_TIMEOUT)
        error_set(&m->error, ERR_UNREACHABLE, "cannot reach %s: no answer within %.1f s",
                  address_of(m), DESCRIBE_US / 1e6);
    if (err == OK)
        check_version(m, &m->error);
    m->is_done = true;
    return NULL;
}

/* ---- serving tensors ---- */

static enum err serve_tensors(void *context, struct rpc_call *call, const void *request,
                              size_t bytes, struct error *e)
{
    struct cluster *c = context;
    return tensor_serve(c->o.file, call, request, bytes, e);
}

static const struct rpc_method methods[] = {
    {.path = NODE_SERVICE "FetchTensors", .produce = serve_tensors},
    {.path = NULL},
};

static bool all_are_loopback(const struct cluster *c)
{
    bool loopback = true;
    for (int i = 0; i < c->n_members; i++) {
        struct address a;
        loopback &=
            address_parse(address_of(&c->members[i]), &a, NULL) == OK && address_is_loopback(&a);
    }
    return loopback;
}

/* On loopback when all workers are here; on all addresses only where that was asked for. */
static enum err open_server(struct cluster *c, struct error *e)
{
    bool local = all_are_loopback(c);
    if (!local && !c->o.insecure)
        return OK;
    struct rpc_server_options o = {
        .listen = local ? "127.0.0.1:0" : "0.0.0.0:0", .methods = methods, .context = c};
    return rpc_server_start(c->loop, &o, &c->server, e);
}

/* ---- assigning ---- */

static enum err list_tensor(const struct model_tensor *t, void *context, struct error *e)
{
    struct member *m = context;
    m->tensor_bytes += t->bytes;
    return tensor_list_add(&m->tensors, t, e);
}

static enum err list_tensors(struct member *m, struct error *e)
{
    struct model_part part = {
        .first = m->stage->first, .last = m->stage->last, .embedding = m->stage->first == 0};
    return model_part_tensors(m->cluster->o.file, &part, list_tensor, m, e);
}

static void fill_request(const struct member *m, const struct model_params *params,
                         shoal_v1_AssignRequest *r)
{
    const struct cluster *c = m->cluster;
    struct model_identity identity;
    *r = (shoal_v1_AssignRequest){
        .protocol = NODE_PROTOCOL,
        .version = SHOAL_VERSION,
        .epoch = c->o.epoch,
        .has_identity = true,
        .has_params = true,
        .first = (uint32_t)m->stage->first,
        .last = (uint32_t)m->stage->last,
        .kv_type = c->o.kv_type,
        .n_blocks = (uint32_t)c->o.n_blocks,
        .n_slots = (uint32_t)c->o.n_slots,
        .max_rows = (uint32_t)c->o.max_rows,
        .max_context = (uint32_t)c->o.max_context,
        .credits = (uint32_t)c->o.credits,
        .stage = (uint32_t)m->stage_i,
        .fetch_port = c->server != NULL ? (uint32_t)rpc_server_port(c->server) : 0,
    };
    modelfile_identity(c->o.file, &identity);
    identity_to_message(&identity, &r->identity);
    params_to_message(params, &r->params);
    /* A relative path is looked up from where the worker runs: what it finds is checked. */
    char *real = realpath(modelfile_path(c->o.file), NULL);
    snprintf(r->path, sizeof(r->path), "%s", real != NULL ? real : modelfile_path(c->o.file));
    free(real);
    const struct member *next = member_of(m->cluster, m->stage_i + 1);
    if (next != NULL)
        snprintf(r->next, sizeof(r->next), "%s", address_of(next));
}

static enum err send_assign(struct member *m, struct error *e)
{
    struct model_params params;
    struct rpc_buffer request, answer;
    enum err err = modelfile_params(m->cluster->o.file, &params, e);
    if (err != OK)
        return err;
    shoal_v1_AssignRequest *r = malloc(sizeof(*r));
    if (r == NULL)
        return error_set(e, ERR_MEMORY, "no memory for a message");
    fill_request(m, &params, r);
    err = assign_encode(r, &m->tensors, &request, e);
    free(r);
    if (err != OK)
        return err;
    m->is_assigned = true;
    /* No deadline: loading takes what it takes; a node that dies is noticed. */
    err = rpc_unary(m->control, NODE_SERVICE "Assign", request.data, request.bytes, 0, &answer, e);
    rpc_buffer_release(&request);
    rpc_buffer_release(&answer);
    return err;
}

static void *assign_member(void *context)
{
    struct member *m = context;
    if (m->stage != NULL && send_assign(m, &m->error) != OK)
        rpc_error_role(&m->error, "node");
    m->is_done = true;
    return NULL;
}

static void report_progress(struct cluster *c)
{
    uint64_t done = 0, total = 0;
    for (int i = 0; i < c->n_members; i++) {
        struct member *m = &c->members[i];
        struct node_report s;
        total += m->tensor_bytes;
        if (m->is_done)
            done += m->tensor_bytes;
        else if (node_ask_report(m->control, STATS_US, &s, NULL) == OK && s.epoch == c->o.epoch)
            done += s.load_done < m->tensor_bytes ? s.load_done : m->tensor_bytes;
    }
    c->o.progress(done, total, c->o.progress_context);
}

/* A worker that hears nothing of its lead for half a minute gives its layers up. */
static void show_presence(struct cluster *c)
{
    struct node_report unused;
    for (int i = 0; i < c->n_members; i++)
        if (c->members[i].is_done && c->members[i].is_assigned)
            node_ask_report(c->members[i].control, STATS_US, &unused, NULL);
}

static enum err assign_all(struct cluster *c, struct error *e)
{
    time_us next_report = clock_now_us() + PROGRESS_US;
    time_us next_sign = clock_now_us() + PRESENCE_US;
    for_all(c, assign_member);
    while (!all_done(c)) {
        clock_sleep_us(RING_POLL_US);
        if (c->o.progress != NULL && clock_now_us() >= next_report) {
            report_progress(c);
            next_report = clock_now_us() + PROGRESS_US;
        }
        if (clock_now_us() >= next_sign) {
            show_presence(c);
            next_sign = clock_now_us() + PRESENCE_US;
        }
    }
    enum err err = join_all(c, e);
    if (err == OK && c->o.progress != NULL)
        report_progress(c);
    return err;
}

/* ---- the ring ---- */

static enum err open_link(struct member *m, struct error *e)
{
    struct cluster *c = m->cluster;
    struct link_grpc_options o = {.peer = "node",
                                  .inbox = c->inbox,
                                  .receives = member_of(c, m->stage_i + 1) == NULL,
                                  .max_queued = c->o.credits,
                                  .on_down = link_is_down,
                                  .context = c};
    enum err err = rpc_channel_open(address_of(m), &m->activations, e);
    if (err != OK)
        return err;
    return link_grpc_open(c->loop, m->activations, c->o.epoch, LINK_ROLE_LEAD, &o, &m->link, e);
}

static enum err member_is_linked(struct member *m, bool *linked, struct error *e)
{
    struct node_report s;
    enum err err = node_ask_report(m->control, STATS_US, &s, e);
    if (err != OK)
        return err;
    *linked = s.epoch == m->cluster->o.epoch && s.state == NODE_LINKED;
    if (s.epoch != m->cluster->o.epoch)
        return error_set(e, ERR_CLOSED, "node %s gave the epoch up: %s", address_of(m),
                         s.failure[0] != 0 ? s.failure : "another lead took it");
    return OK;
}

static enum err close_ring(struct cluster *c, struct error *e)
{
    enum err err = OK;
    int n = c->o.plan->n_stages - 1;
    for (int i = 0; i < n && err == OK; i++)
        err = open_link(member_of(c, i), e);
    time_us until = clock_now_us() + RING_US;
    for (int i = 0; i < n && err == OK;) {
        struct member *m = member_of(c, i);
        bool linked = false;
        err = cluster_check(c, e);
        if (err == OK)
            err = member_is_linked(m, &linked, e);
        if (linked)
            i++;
        else if (err == OK && clock_now_us() > until)
            err = error_set(e, ERR_TIMEOUT, "node %s is not linked to the next after %d s",
                            address_of(m), RING_US / 1000000);
        else if (err == OK)
            clock_sleep_us(RING_POLL_US);
    }
    return err;
}

/* ---- giving back ---- */

static void *unassign_member(void *context)
{
    struct member *m = context;
    struct error why;
    if (m->is_assigned && node_unassign(m->control, m->cluster->o.epoch, UNASSIGN_US, &why) != OK)
        log_info("node %s", why.text);
    m->is_done = true;
    return NULL;
}

/* What comes from the nodes from now on is no failure any more. */
static void unassign_all(struct cluster *c)
{
    pthread_mutex_lock(&c->lock);
    c->is_closing = true;
    pthread_mutex_unlock(&c->lock);
    for_all(c, unassign_member);
    join_all(c, NULL);
}

/* ---- connecting ---- */

static void fill_info(struct member *m)
{
    const struct node_description *d = &m->description;
    struct node_info *info = &m->info;
    static_assert(sizeof(info->version) == sizeof(d->version), "cut nothing");
    memcpy(info->version, d->version, sizeof(info->version));
    snprintf(info->numerics_id, sizeof(info->numerics_id), "%s", d->numerics_id);
    snprintf(info->backend, sizeof(info->backend), "%s %s", d->backend, d->variant);
    info->n_threads = d->threads;
    info->memory_total_bytes = d->memory_total;
    info->memory_free_bytes = d->memory_available;
}

/* One address of the list, up to the next comma; *list moves behind it. */
static enum err take_address(const char **list, char out[static PLAN_MAX_ADDRESS], struct error *e)
{
    size_t n = strcspn(*list, ",");
    struct address a;
    char text[PLAN_MAX_ADDRESS];
    snprintf(text, sizeof(text), "%.*s", (int)(n < 300 ? n : 300), *list);
    enum err err = address_parse(text, &a, e);
    if (err == OK && (a.port == 0 || n >= sizeof(text)))
        err = error_set(e, ERR_INVALID, "\"%s\" is no address of a node", text);
    memcpy(out, text, sizeof(text));
    *list += n + ((*list)[n] == ',');
    return err;
}

static int count_addresses(const char *list)
{
    int n = 1;
    for (; *list != 0; list++)
        n += *list == ',';
    return n;
}

static enum err open_members(struct cluster *c, const char *nodes, struct error *e)
{
    enum err err = OK;
    for (int i = 0; i < c->n_members && err == OK; i++) {
        struct member *m = &c->members[i];
        m->cluster = c;
        err = take_address(&nodes, m->info.address, e);
        for (int j = 0; j < i && err == OK; j++)
            if (strcmp(address_of(&c->members[j]), address_of(m)) == 0)
                err = error_set(e, ERR_INVALID, "node %s is listed twice", address_of(m));
        if (err == OK)
            err = rpc_channel_open(address_of(m), &m->control, e);
    }
    return err;
}

enum err cluster_connect(const char *nodes, struct cluster **out, struct error *e)
{
    *out = NULL;
    int n = count_addresses(nodes);
    if (n >= RING_MAX_STAGES)
        return error_set(e, ERR_LIMIT, "%d nodes, at most %d expected", n, RING_MAX_STAGES - 1);
    struct cluster *c = xcalloc(1, sizeof(*c));
    c->members = xcalloc((size_t)n, sizeof(*c->members));
    c->n_members = n;
    pthread_mutex_init(&c->lock, NULL);
    enum err err = rpc_loop_start(&c->loop, e);
    if (err == OK)
        err = open_members(c, nodes, e);
    if (err == OK) {
        for_all(c, describe_member);
        err = join_all(c, e);
    }
    if (err != OK) {
        cluster_close(c);
        return err;
    }
    for (int i = 0; i < n; i++)
        fill_info(&c->members[i]);
    *out = c;
    return OK;
}

/* ---- assigning ---- */

static enum err check_all(struct cluster *c, struct error *e)
{
    struct model_params params;
    enum err err = modelfile_params(c->o.file, &params, e);
    for (int i = 0; i < c->o.plan->n_stages - 1 && err == OK; i++) {
        struct member *m = member_of(c, i);
        m->stage = &c->o.plan->stages[i];
        m->stage_i = i;
        err = check_numerics(m, c->o.numerics_id, e);
        if (err == OK)
            err = list_tensors(m, e);
        if (err == OK)
            err = check_memory(c, m, &params, e);
    }
    return err;
}

enum err cluster_assign(struct cluster *c, const struct cluster_options *o, struct link **first,
                        struct inbox **inbox, struct error *e)
{
    ASSERT(o->plan->n_stages >= 2 && o->plan->n_stages - 1 <= c->n_members);
    ASSERT(o->credits >= 1 && o->epoch != 0 && c->inbox == NULL);
    c->o = *o;
    c->inbox = inbox_new(o->credits);
    enum err err = check_all(c, e);
    if (err == OK)
        err = open_server(c, e);
    if (err == OK)
        err = assign_all(c, e);
    if (err == OK)
        err = close_ring(c, e);
    if (err != OK) {
        unassign_all(c);
        return err;
    }
    *first = link_grpc_link(member_of(c, 0)->link);
    *inbox = c->inbox;
    return OK;
}

/* ---- closing ---- */

void cluster_close(struct cluster *c)
{
    if (c == NULL)
        return;
    unassign_all(c);
    for (int i = 0; i < c->n_members; i++) {
        struct member *m = &c->members[i];
        link_grpc_close(m->link, NULL);
        rpc_channel_close(m->activations);
        rpc_channel_close(m->control);
        tensor_list_release(&m->tensors);
    }
    rpc_server_stop(c->server);
    rpc_loop_stop(c->loop);
    inbox_free(c->inbox);
    pthread_mutex_destroy(&c->lock);
    free(c->members);
    free(c);
}

/* ---- looking at it ---- */

int cluster_n_nodes(const struct cluster *c)
{
    return c->n_members;
}

const struct node_info *cluster_node(const struct cluster *c, int node_i)
{
    ASSERT(node_i >= 0 && node_i < c->n_members);
    return &c->members[node_i].info;
}

enum err cluster_stats(struct cluster *c, int node_i, struct node_stats *out, struct error *e)
{
    struct node_report r;
    ASSERT(node_i >= 0 && node_i < c->n_members);
    enum err err = node_ask_report(c->members[node_i].control, STATS_US, &r, e);
    if (err == ERR_TIMEOUT)
        err = error_set(e, ERR_UNREACHABLE, "node %s does not answer",
                        address_of(&c->members[node_i]));
    if (err != OK)
        return err;
    *out = (struct node_stats){
        .steps = r.steps,
        .rows = r.rows,
        .time = r.time,
        .sent_bytes = r.bytes_out,
        .received_bytes = r.bytes_in,
        .weight_bytes = r.weight_bytes,
        .kv_bytes = r.kv_bytes,
        .activation_bytes = r.activation_bytes,
        .anon_bytes = r.anonymous_bytes,
        .anon_peak_bytes = r.anonymous_peak_bytes,
        .fetched = r.is_fetched,
    };
    return OK;
}
