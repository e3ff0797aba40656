/* shoal worker: lend this machine to a cluster. */
#include "base/bounds.h"
#include "cli/cli.h"
#include "cli/flags.h"
#include "cli/lead_flags.h"
#include "node/worker.h"
#include "rpc/address.h"

enum err verb_worker(int argc, char **argv, struct error *e)
{
    struct worker_options o = {.listen = "127.0.0.1:50100"};
    const struct flag table[] = {
        {"listen", FLAG_STRING, &o.listen, "H:P", "address (default 127.0.0.1:50100; port 0: any)"},
        {"threads", FLAG_INT, &o.threads, "K", "compute threads (default: every processor)",
         .min = 1, .max = POOL_MAX_THREADS},
        {"pin", FLAG_BOOL, &o.pin, NULL, "keep each compute thread to one processor"},
        BACKEND_FLAGS(o.backend),
        {"insecure", FLAG_BOOL, &o.insecure, NULL,
         "allow an address that other machines reach: anyone there may use this node"},
        {0},
    };
    const struct verb_usage usage = {
        "worker",
        "[--listen H:P] [flags]",
        "Lends this machine to a cluster: prints \"listening on H:P\" and serves until stopped.",
        table,
        0,
        0};
    int n_args;
    struct address listen;
    enum err err = flags_parse(&usage, argc, argv, NULL, &n_args, e);
    if (err == OK && address_parse(o.listen, &listen, e) != OK)
        return ERR_USAGE;
    return err == OK ? worker_run(&o, e) : err;
}
