#include "sim/sim_fault.h"

#include "base/bounds.h"
#include "base/panic.h"

#include <stdlib.h>
#include <string.h>

struct sim_saboteur {
    struct sim_fault fault;
    uint32_t hidden;
    int n_slots, n_blocks;
    bool done;
    struct frame *held; /* FAULT_SWAP_FRAMES: waits for the next */
    /* What the stage at the fault's hop knows, as far as the steps were seen. */
    int *owner;       /* per block: slot + 1, 0: nobody's */
    uint32_t *filled; /* per slot: positions computed */
    /* The changed step. */
    struct step step;
    struct step_row *rows;
    struct step_update *updates;
    const float *payload;
};

const char *sim_fault_name(enum sim_fault_kind kind)
{
    static const char *const names[N_FAULTS] = {
        [FAULT_NONE] = "none",
        [FAULT_DROP_FRAME] = "dropped frame",
        [FAULT_DUPLICATE_FRAME] = "duplicated frame",
        [FAULT_SWAP_FRAMES] = "reordered frames",
        [FAULT_STALE_EPOCH] = "stale epoch",
        [FAULT_FLIP_BIT] = "flipped bit",
        [FAULT_LOSE_ROW] = "lost row",
        [FAULT_SWAP_ROWS] = "reordered rows",
        [FAULT_SWAP_PAYLOAD] = "reordered hidden states",
        [FAULT_LOSE_UPDATE] = "lost update",
        [FAULT_WRONG_BLOCK] = "wrong block",
        [FAULT_INSIDE_WRONG_BLOCK] = "wrong block inside a node",
        [FAULT_INSIDE_FOREIGN_BLOCK] = "swapped block inside a node",
        [FAULT_INSIDE_LOST_ROW] = "lost row inside a node",
        [FAULT_INSIDE_WRONG_POSITION] = "wrong position inside a node",
        [FAULT_INSIDE_WRONG_SLOT] = "wrong slot inside a node",
        [FAULT_INSIDE_WRONG_TOKEN] = "wrong token inside a node",
    };
    return kind < N_FAULTS ? names[kind] : "unknown";
}

bool sim_fault_is_inside(enum sim_fault_kind kind)
{
    return kind >= FAULT_INSIDE_WRONG_BLOCK;
}

struct sim_saboteur *sim_saboteur_new(const struct sim_fault *fault, int n_slots, int n_blocks,
                                      uint32_t hidden)
{
    struct sim_saboteur *s = xcalloc(1, sizeof(*s));
    s->fault = *fault;
    s->hidden = hidden;
    s->n_slots = n_slots;
    s->n_blocks = n_blocks;
    s->owner = xcalloc((size_t)n_blocks, sizeof(s->owner[0]));
    s->filled = xcalloc((size_t)n_slots, sizeof(s->filled[0]));
    s->rows = xcalloc(STEP_MAX_ROWS, sizeof(s->rows[0]));
    s->updates = xcalloc(STEP_MAX_UPDATES, sizeof(s->updates[0]));
    return s;
}

void sim_saboteur_free(struct sim_saboteur *s)
{
    if (s == NULL)
        return;
    frame_free(s->held);
    free(s->owner);
    free(s->filled);
    free(s->rows);
    free(s->updates);
    free(s);
}

bool sim_saboteur_done(const struct sim_saboteur *s)
{
    return s->done;
}

/* ---- what is seen of the steps ---- */

/* The slot closes: its blocks are nobody's. */
static void observe_close(struct sim_saboteur *s, uint32_t slot)
{
    s->filled[slot] = 0;
    for (int b = 0; b < s->n_blocks; b++)
        if (s->owner[b] == (int)slot + 1)
            s->owner[b] = 0;
}

static void observe(struct sim_saboteur *s, const struct step *step)
{
    for (uint32_t i = 0; i < step->n_updates; i++) {
        const struct step_update *u = &step->updates[i];
        if (u->kind == UPDATE_APPEND)
            s->owner[u->block] = (int)u->slot + 1;
        if (u->kind == UPDATE_CLOSE)
            observe_close(s, u->slot);
    }
    for (uint32_t i = 0; i < step->n_rows; i++)
        s->filled[step->rows[i].slot] = step->rows[i].position + 1;
}

/* A copy of the frame's step that may be changed. */
static void copy_step(struct sim_saboteur *s, const struct frame *f)
{
    struct error e;
    uint32_t hidden = s->fault.hop == 0 ? 0 : s->hidden;
    if (step_read(f->data, f->bytes, hidden, &s->step, &s->payload, &e) != OK)
        PANIC("a frame of our own: %s", e.text);
    if (s->step.n_rows > 0)
        memcpy(s->rows, s->step.rows, s->step.n_rows * sizeof(s->rows[0]));
    if (s->step.n_updates > 0)
        memcpy(s->updates, s->step.updates, s->step.n_updates * sizeof(s->updates[0]));
    s->step.rows = s->rows;
    s->step.updates = s->updates;
}

/* ---- changing the copied step; false: this step offers no chance ---- */

/* A block with data that a sequence other than `slot` holds, or -1. */
static int foreign_block(const struct sim_saboteur *s, uint32_t slot)
{
    for (int b = 0; b < s->n_blocks; b++) {
        int owner = s->owner[b] - 1;
        if (owner >= 0 && owner != (int)slot && s->filled[owner] > 0)
            return b;
    }
    return -1;
}

static bool wrong_block(struct sim_saboteur *s)
{
    for (uint32_t i = 0; i < s->step.n_updates; i++) {
        if (s->updates[i].kind == UPDATE_CLOSE) /* its blocks harm nobody any more */
            observe_close(s, s->updates[i].slot);
        int block = foreign_block(s, s->updates[i].slot);
        if (s->updates[i].kind == UPDATE_APPEND && block >= 0) {
            s->updates[i].block = (uint32_t)block;
            return true;
        }
    }
    return false;
}

/* A block of a sequence gets the cells of another's. The sequence is one that runs on: it has a row
 * in this step, past what is overwritten. And it has some length: the cells of the model's first
 * layer are a function of token and position alone, so two prompts that begin with the same word
 * really have the same first cell. */
static bool foreign_cells(struct sim_saboteur *s)
{
    for (uint32_t i = 0; i < s->step.n_updates; i++)
        if (s->updates[i].kind == UPDATE_CLOSE)
            observe_close(s, s->updates[i].slot);
    for (uint32_t i = 0; i < s->step.n_rows; i++) {
        uint32_t slot = s->rows[i].slot;
        int from = foreign_block(s, slot);
        if (from < 0 || s->filled[slot] < KV_BLOCK_TOKENS / 2)
            continue;
        for (int b = 0; b < s->n_blocks; b++) {
            if (s->owner[b] != (int)slot + 1)
                continue;
            s->updates[s->step.n_updates++] = (struct step_update){
                .kind = UPDATE_COPY, .block = (uint32_t)b, .from = (uint32_t)from};
            return true;
        }
    }
    return false;
}

static bool lose_append(struct sim_saboteur *s)
{
    for (uint32_t i = 0; i < s->step.n_updates; i++) {
        if (s->updates[i].kind != UPDATE_APPEND)
            continue;
        s->step.n_updates--;
        memmove(&s->updates[i], &s->updates[i + 1],
                (s->step.n_updates - i) * sizeof(s->updates[0]));
        return true;
    }
    return false;
}

/* Two rows of different sequences. */
static bool find_two(const struct sim_saboteur *s, uint32_t *a, uint32_t *b)
{
    for (*a = 0; *a < s->step.n_rows; ++*a)
        for (*b = *a + 1; *b < s->step.n_rows; ++*b)
            if (s->rows[*a].slot != s->rows[*b].slot)
                return true;
    return false;
}

static bool swap_rows(struct sim_saboteur *s)
{
    uint32_t a, b;
    if (!find_two(s, &a, &b))
        return false;
    struct step_row row = s->rows[a];
    s->rows[a] = s->rows[b];
    s->rows[b] = row;
    return true;
}

static bool lose_row(struct sim_saboteur *s)
{
    if (s->step.n_rows < 2)
        return false;
    s->step.n_rows--;
    return true;
}

static bool wrong_position(struct sim_saboteur *s)
{
    if (s->step.n_rows == 0 || s->rows[0].position == 0)
        return false;
    s->rows[0].position--;
    return true;
}

static bool wrong_slot(struct sim_saboteur *s)
{
    uint32_t a, b;
    if (!find_two(s, &a, &b))
        return false;
    s->rows[a].slot = s->rows[b].slot;
    return true;
}

static bool wrong_token(struct sim_saboteur *s)
{
    if (s->step.n_rows == 0)
        return false;
    s->rows[0].token ^= 1;
    return true;
}

static bool change_step(struct sim_saboteur *s)
{
    switch (s->fault.kind) {
    case FAULT_STALE_EPOCH: s->step.epoch--; return true;
    case FAULT_LOSE_ROW:
    case FAULT_INSIDE_LOST_ROW: return lose_row(s);
    case FAULT_SWAP_ROWS: return swap_rows(s);
    case FAULT_LOSE_UPDATE: return lose_append(s);
    case FAULT_WRONG_BLOCK:
    case FAULT_INSIDE_WRONG_BLOCK: return wrong_block(s);
    case FAULT_INSIDE_FOREIGN_BLOCK: return foreign_cells(s);
    case FAULT_INSIDE_WRONG_POSITION: return wrong_position(s);
    case FAULT_INSIDE_WRONG_SLOT: return wrong_slot(s);
    case FAULT_INSIDE_WRONG_TOKEN: return wrong_token(s);
    default: PANIC("fault %d changes no step", (int)s->fault.kind);
    }
}

/* The changed step as a frame, with the payload of the rows that are left. */
static struct frame *rewritten(const struct sim_saboteur *s)
{
    float *payload;
    struct frame *f = step_write(&s->step, &payload);
    ASSERT(f != NULL);
    if (payload != NULL)
        memcpy(payload, s->payload, (size_t)s->step.n_rows * s->step.hidden * sizeof(float));
    frame_seal(f);
    return f;
}

static bool swap_payload(struct sim_saboteur *s, struct frame *f)
{
    uint32_t a, b;
    if (s->payload == NULL || !find_two(s, &a, &b))
        return false;
    float *payload = (float *)(void *)(f->data + ((const uint8_t *)s->payload - f->data));
    for (uint32_t i = 0; i < s->step.hidden; i++) {
        float x = payload[a * s->step.hidden + i];
        payload[a * s->step.hidden + i] = payload[b * s->step.hidden + i];
        payload[b * s->step.hidden + i] = x;
    }
    frame_seal(f);
    return true;
}

/* ---- the two places ---- */

/* Is this frame at the fault's place and time? Then its step was copied. */
static bool is_due(struct sim_saboteur *s, int hop, const struct frame *f)
{
    if (s->done || s->fault.kind == FAULT_NONE || hop != s->fault.hop)
        return false;
    copy_step(s, f);
    return s->step.number >= s->fault.from_step;
}

static struct frame *copy_of(const struct frame *f)
{
    struct frame *copy = frame_new(f->bytes);
    ASSERT(copy != NULL);
    memcpy(copy->data, f->data, f->bytes);
    return copy;
}

static int sabotage(struct sim_saboteur *s, struct frame *f, struct frame *arriving[2])
{
    arriving[0] = f;
    switch (s->fault.kind) {
    case FAULT_DROP_FRAME:
        s->done = true;
        frame_free(f);
        return 0;
    case FAULT_DUPLICATE_FRAME:
        s->done = true;
        arriving[1] = copy_of(f);
        return 2;
    case FAULT_SWAP_FRAMES:
        s->done = true;
        s->held = f;
        return 0;
    case FAULT_FLIP_BIT:
        s->done = true;
        f->data[f->bytes / 2] ^= 4;
        return 1;
    case FAULT_SWAP_PAYLOAD: s->done = swap_payload(s, f); return 1;
    default: break;
    }
    s->done = change_step(s);
    if (!s->done) {
        observe(s, &s->step);
        return 1;
    }
    arriving[0] = rewritten(s);
    frame_free(f);
    return 1;
}

int sim_saboteur_wire(struct sim_saboteur *s, int hop, struct frame *f, struct frame *arriving[2])
{
    arriving[0] = f;
    if (s->held != NULL && hop == s->fault.hop) {
        arriving[1] = s->held;
        s->held = NULL;
        return 2;
    }
    if (sim_fault_is_inside(s->fault.kind))
        return 1;
    if (is_due(s, hop, f))
        return sabotage(s, f, arriving);
    if (!s->done && hop == s->fault.hop)
        observe(s, &s->step);
    return 1;
}

const struct step *sim_saboteur_inside(struct sim_saboteur *s, int hop, const struct frame *f)
{
    if (!sim_fault_is_inside(s->fault.kind) || s->done || hop != s->fault.hop)
        return NULL;
    bool due = is_due(s, hop, f);
    if (due && change_step(s)) {
        s->done = true;
        return &s->step;
    }
    observe(s, &s->step);
    return NULL;
}
