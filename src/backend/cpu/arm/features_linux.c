/* Arm extensions as Linux tells of them: the bits that the kernel hands to every program, which it
 * sets only for what it supports itself. */
#include "backend/cpu/arm/arm.h"

#include <asm/hwcap.h>
#include <sys/auxv.h>

bool arm_has_dotprod(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
}

bool arm_has_i8mm(void)
{
    return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
}
