// noop does nothing: what a task costs without its work.
void _start(void) {}
