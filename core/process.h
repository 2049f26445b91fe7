/*
 * process.h - what the kernel tells everybody of another process: its name, systemd's unit, its age. Empty or -1
 * where it is gone, or hidden (ProtectProc=, hidepid=). Any thread; does not block but for /proc.
 */
#ifndef CORE_PROCESS_H
#define CORE_PROCESS_H

#include <stddef.h>
#include <stdint.h>

#define PROCESS_PROGRAM 16u  /* the kernel keeps so much of a name, NUL included */
#define PROCESS_UNIT    160u /* azoth-projector@DB:NAME:I-K.service at its longest */

void process_name(uint64_t pid, char program[PROCESS_PROGRAM], char unit[PROCESS_UNIT]);
/* The systemd unit in the text of a /proc/PID/cgroup: its name into out; empty when there is none. */
void process_unit(const char *cgroup, char *out, size_t size);
/* Seconds since it began. */
double process_age(uint64_t pid);

#endif
