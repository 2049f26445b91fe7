/*
 * powercut_record.h - a database's life from init on, under load, with everything that writer and projector
 * do to its files written down.
 */
#ifndef TESTS_FAULT_POWERCUT_RECORD_H
#define TESTS_FAULT_POWERCUT_RECORD_H

/* The library that records, to be preloaded. */
void cut_recorder(char out[300]);
/* Records one with that sync mode; fails the test when it cannot. The log's path, until cut_record_end. */
const char *cut_record(const char *sync);
/* Removes everything. keep: but the log, and says where it is and how to check it again as `mode`. */
void cut_record_end(const char *mode, int keep);

#endif
