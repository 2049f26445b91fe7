#ifndef CLIENT_CMD_RUN_H
#define CLIENT_CMD_RUN_H
#define RUN_CHILD_COMMAND "internal-child"
int run_child_main(int argc, char **argv);
#endif
