/* One call each: encode, call, decode, convert. */
#include "node/client.h"

#include "node/messages.h"

#include <stdlib.h>
#include <string.h>

#define STATS_MAX_US ((uint64_t)1 << 60) /* 36 thousand years */

const char *node_state_name(enum node_state s)
{
    static const char *const names[] = {"idle", "loading", "loaded", "linked"};
    return (unsigned)s < 4 ? names[s] : "unknown";
}

/* Call `method` with an encoded message, decode the answer into `out` (zeroed). */
static enum err ask(struct rpc_channel *c, const char *method, const pb_msgdesc_t *request_fields,
                    const void *request, const pb_msgdesc_t *answer_fields, void *out,
                    time_us timeout_us, struct error *e)
{
    struct rpc_buffer message, answer;
    enum err err = message_encode(request_fields, request, &message, e);
    if (err != OK)
        return err;
    err = rpc_unary(c, method, message.data, message.bytes, timeout_us, &answer, e);
    rpc_buffer_release(&message);
    if (err != OK)
        return err;
    err = message_decode(answer_fields, out, answer.data, answer.bytes, method, e);
    if (err != OK)
        error_prefix(e, "%s", rpc_channel_address(c));
    rpc_buffer_release(&answer);
    return err;
}

enum err node_describe(struct rpc_channel *c, time_us timeout_us, struct node_description *out,
                       struct error *e)
{
    shoal_v1_DescribeRequest request = {0};
    shoal_v1_DescribeResponse m = {0};
    enum err err = ask(c, NODE_SERVICE "Describe", shoal_v1_DescribeRequest_fields, &request,
                       shoal_v1_DescribeResponse_fields, &m, timeout_us, e);
    if (err != OK)
        return err;
    *out = (struct node_description){
        .protocol = (int)m.protocol,
        .threads = (int)m.threads,
        .cores = (int)m.cores,
        .memory_total = m.memory_total,
        .memory_available = m.memory_available,
        .state = (enum node_state)m.state,
        .epoch = m.epoch,
        .first = (int)m.first,
        .last = (int)m.last,
    };
    strcpy(out->address, rpc_channel_address(c));
    memcpy(out->version, m.version, sizeof(out->version));
    memcpy(out->backend, m.backend, sizeof(out->backend));
    memcpy(out->variant, m.variant, sizeof(out->variant));
    memcpy(out->numerics_id, m.numerics_id, sizeof(out->numerics_id));
    return OK;
}

/* Times are differences of a node's clock: what does not fit one is no time. */
static enum err check_times(struct rpc_channel *c, const shoal_v1_StatsResponse *m, struct error *e)
{
    const struct {
        const char *name;
        uint64_t us;
    } times[] = {{"compute_us", m->compute_us},
                 {"input_wait_us", m->input_wait_us},
                 {"send_wait_us", m->send_wait_us},
                 {"other_us", m->other_us}};
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
        if (times[i].us > STATS_MAX_US)
            return error_set(e, ERR_FORMAT, "%s: Stats: %s of at most %llu expected, found %llu",
                             rpc_channel_address(c), times[i].name,
                             (unsigned long long)STATS_MAX_US, (unsigned long long)times[i].us);
    return OK;
}

enum err node_ask_report(struct rpc_channel *c, time_us timeout_us, struct node_report *out,
                         struct error *e)
{
    shoal_v1_StatsRequest request = {0};
    shoal_v1_StatsResponse m = {0};
    enum err err = ask(c, NODE_SERVICE "Stats", shoal_v1_StatsRequest_fields, &request,
                       shoal_v1_StatsResponse_fields, &m, timeout_us, e);
    if (err == OK)
        err = check_times(c, &m, e);
    if (err != OK)
        return err;
    *out = (struct node_report){
        .state = (enum node_state)m.state,
        .epoch = m.epoch,
        .load_done = m.load_done,
        .load_total = m.load_total,
        .fetched_bytes = m.fetched_bytes,
        .weight_bytes = m.weight_bytes,
        .kv_bytes = m.kv_bytes,
        .activation_bytes = m.activation_bytes,
        .is_fetched = m.fetched,
        .anonymous_bytes = m.anonymous_bytes,
        .anonymous_peak_bytes = m.anonymous_peak_bytes,
        .steps = m.steps,
        .rows = m.rows,
        .time = {(time_us)m.compute_us, (time_us)m.input_wait_us, (time_us)m.send_wait_us,
                 (time_us)m.other_us},
        .bytes_in = m.bytes_in,
        .bytes_out = m.bytes_out,
    };
    memcpy(out->failure, m.failure, sizeof(out->failure));
    return OK;
}

enum err node_unassign(struct rpc_channel *c, uint64_t epoch, time_us timeout_us, struct error *e)
{
    shoal_v1_UnassignRequest request = {.epoch = epoch};
    shoal_v1_UnassignResponse m = {0};
    return ask(c, NODE_SERVICE "Unassign", shoal_v1_UnassignRequest_fields, &request,
               shoal_v1_UnassignResponse_fields, &m, timeout_us, e);
}

static enum err probe(struct rpc_channel *c, const struct byte_field *there, uint32_t bytes_back,
                      struct byte_field *back, time_us timeout_us, struct node_probe *out,
                      struct error *e)
{
    struct rpc_buffer message, answer;
    uint64_t handling_us = 0;
    enum err err = probe_request_encode(bytes_back, there, &message, e);
    if (err != OK)
        return err;
    time_us start = clock_now_us();
    err = rpc_unary(c, NODE_SERVICE "Probe", message.data, message.bytes, timeout_us, &answer, e);
    out->round_trip_us = clock_now_us() - start;
    rpc_buffer_release(&message);
    if (err != OK)
        return err;
    err = probe_response_decode(answer.data, answer.bytes, &handling_us, back, e);
    rpc_buffer_release(&answer);
    out->handling_us = (time_us)handling_us;
    out->bytes_there = there->bytes;
    out->bytes_back = back->bytes;
    return err;
}

enum err node_ask_probe(struct rpc_channel *c, uint32_t bytes_there, uint32_t bytes_back,
                        time_us timeout_us, struct node_probe *out, struct error *e)
{
    if (bytes_there > PROBE_MAX_BYTES || bytes_back > PROBE_MAX_BYTES)
        return error_set(e, ERR_LIMIT, "a probe of more than %d bytes", PROBE_MAX_BYTES);
    struct byte_field there = {.data = calloc(1, (size_t)bytes_there + 1), .bytes = bytes_there};
    struct byte_field back = {.data = malloc(PROBE_MAX_BYTES), .capacity = PROBE_MAX_BYTES};
    enum err err = ERR_MEMORY;
    if (there.data == NULL || back.data == NULL)
        error_set(e, err, "no memory for a probe");
    else
        err = probe(c, &there, bytes_back, &back, timeout_us, out, e);
    free(there.data);
    free(back.data);
    return err;
}
