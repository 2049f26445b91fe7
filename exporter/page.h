/* page.h - the page, as it lies in exporter/page.html: part of the program. */
#ifndef EXPORTER_PAGE_H
#define EXPORTER_PAGE_H

#include "core/azoth_base.h"

struct azoth_bytes page_html(void);

#endif
