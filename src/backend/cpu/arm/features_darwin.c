/* Arm extensions as macOS tells of them. A name that this system does not know is an extension that
 * it does not have. */
#include "backend/cpu/arm/arm.h"

#include <sys/sysctl.h>

static bool has(const char *name)
{
    int value = 0;
    size_t bytes = sizeof value;
    return sysctlbyname(name, &value, &bytes, NULL, 0) == 0 && bytes == sizeof value && value != 0;
}

bool arm_has_dotprod(void)
{
    return has("hw.optional.arm.FEAT_DotProd");
}

bool arm_has_i8mm(void)
{
    return has("hw.optional.arm.FEAT_I8MM");
}
