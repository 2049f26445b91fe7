#include "exporter/page.h"

/* The assembler reads the file, so it is one file for editors and browsers, and needs no tool. */
__asm__(".pushsection .rodata\n"
        ".balign 8\n"
        ".local page_html_bytes, page_html_text\n"
        "page_html_bytes: .quad page_html_end - page_html_text\n"
        "page_html_text: .incbin \"exporter/page.html\"\n"
        "page_html_end: .popsection\n");
extern const uint64_t page_html_bytes;
extern const char page_html_text[];

struct azoth_bytes page_html(void)
{
    return (struct azoth_bytes){page_html_text, (size_t)page_html_bytes};
}
