#include "base/printable.h"

/* Well-formed byte sequences (The Unicode Standard, table 3-7): the second byte's range depends on
 * the first byte, the others are 80..bf. */
static const struct {
    unsigned char first, last;
    unsigned char second_least, second_most;
    int bytes;
} forms[] = {
    {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
    {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
    {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
};

int utf8_char_bytes(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80)
        return s[0] != 0;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (s[0] < forms[i].first || s[0] > forms[i].last)
            continue;
        if (s[1] < forms[i].second_least || s[1] > forms[i].second_most)
            return 0;
        for (int at = 2; at < forms[i].bytes; at++)
            if ((s[at] & 0xc0) != 0x80) /* the 0 at the end too */
                return 0;
        return forms[i].bytes;
    }
    return 0;
}

void make_printable(char *text)
{
    unsigned char *s = (unsigned char *)text;
    while (*s != 0) {
        int n = utf8_char_bytes((const char *)s);
        bool control =
            (n == 1 && (s[0] < 0x20 || s[0] == 0x7f)) || (n == 2 && s[0] == 0xc2 && s[1] < 0xa0);
        if (n > 0 && !control) {
            s += n;
            continue;
        }
        for (int i = 0; i < (n > 0 ? n : 1); i++)
            *s++ = '?';
    }
}
