#include "api/api_error_impl.h"

#include "api/json_text_impl.h"

#include <stdio.h>
#include <string.h>

static const struct {
    unsigned status;
    const char *type, *code;
} faults[N_FAULTS] = {
#define FAULT_ROW(name, status, type, code) [name] = {status, type, code},
    FAULT_LIST(FAULT_ROW)
#undef FAULT_ROW
};

bool api_refuse(struct api_error *e, enum api_fault fault, const char *param, const char *format,
                ...)
{
    e->fault = fault;
    snprintf(e->param, sizeof e->param, "%s", param != NULL ? param : "");
    va_list args;
    va_start(args, format);
    error_vset(&e->reason, ERR_INVALID, format, args);
    va_end(args);
    return false;
}

unsigned api_error_status(const struct api_error *e)
{
    return faults[e->fault].status;
}

json_t *api_error_json(const struct api_error *e)
{
    json_t *param = e->param[0] != 0 ? json_text(e->param, strlen(e->param)) : json_null();
    return json_pack("{s:{s:o, s:s, s:o, s:s}}", "error", "message",
                     json_text(e->reason.text, strlen(e->reason.text)), "type",
                     faults[e->fault].type, "param", param, "code", faults[e->fault].code);
}
