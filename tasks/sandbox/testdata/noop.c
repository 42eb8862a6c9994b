/* Ends at once with exit code 0. */
int main(void) { return 0; }
