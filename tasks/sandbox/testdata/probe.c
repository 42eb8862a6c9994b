/* A guest with one mode per test: probe MODE [ARGUMENT…]. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <wasi/api.h>

extern char **environ;

static int fail(const char *what) {
	printf("%s: %s\n", what, strerror(errno));
	return 1;
}

/* echo ARGS: the arguments, one a line. */
static int echo(int n, char **args) {
	for (int i = 0; i < n; i++) puts(args[i]);
	return 0;
}

/* env: all that could tell machines apart. */
static int env(void) {
	int count = 0;
	for (char **e = environ; *e; e++) count++;
	printf("environment %d\n", count);
	struct timespec t;
	for (int i = 0; i < 3; i++) {
		clock_gettime(CLOCK_REALTIME, &t);
		printf("wall %lld.%09ld\n", (long long)t.tv_sec, t.tv_nsec);
	}
	clock_gettime(CLOCK_MONOTONIC, &t);
	printf("monotonic %lld.%09ld\n", (long long)t.tv_sec, t.tv_nsec);
	struct timespec nap = {3600, 0};
	nanosleep(&nap, NULL);
	clock_gettime(CLOCK_MONOTONIC, &t);
	printf("after an hour %lld.%09ld\n", (long long)t.tv_sec, t.tv_nsec);
	unsigned char random[8];
	getentropy(random, sizeof random);
	printf("random ");
	for (size_t i = 0; i < sizeof random; i++) printf("%02x", random[i]);
	printf("\nstdin %d\n", getchar());
	return 0;
}

/* cat PATH… */
static int cat(int n, char **paths) {
	static char buf[65536];
	for (int i = 0; i < n; i++) {
		int fd = open(paths[i], O_RDONLY);
		if (fd < 0) return fail(paths[i]);
		ssize_t got;
		while ((got = read(fd, buf, sizeof buf)) > 0) fwrite(buf, 1, got, stdout);
		close(fd);
	}
	return 0;
}

/* ls PATH: names, types, sizes, numbers. */
static int ls(const char *path) {
	DIR *dir = opendir(path);
	if (!dir) return fail(path);
	for (struct dirent *e; (e = readdir(dir));) {
		char full[4096];
		snprintf(full, sizeof full, "%s/%s", path, e->d_name);
		struct stat st;
		if (strcmp(e->d_name, "..") == 0 || stat(full, &st) != 0) continue;
		printf("%s %s %lld %llu %lld\n", e->d_name, S_ISDIR(st.st_mode) ? "dir" : "file", (long long)st.st_size,
			(unsigned long long)st.st_ino, (long long)st.st_mtim.tv_sec);
	}
	closedir(dir);
	return 0;
}

/* put PATH BYTES: write a file of that many bytes. */
static int put(const char *path, long long bytes) {
	static char buf[65536];
	for (size_t i = 0; i < sizeof buf; i++) buf[i] = (char)(i * 31);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
	if (fd < 0) return fail(path);
	while (bytes > 0) {
		size_t n = bytes < (long long)sizeof buf ? (size_t)bytes : sizeof buf;
		ssize_t done = write(fd, buf, n);
		if (done <= 0) return fail("write");
		bytes -= done;
	}
	return close(fd);
}

/* many COUNT: that many empty files. */
static int many(int count) {
	for (int i = 0; i < count; i++) {
		char name[64];
		snprintf(name, sizeof name, "/out/f%d", i);
		int fd = open(name, O_WRONLY | O_CREAT, 0666);
		if (fd < 0) return fail(name);
		close(fd);
	}
	return 0;
}

/* hold: open files until it is refused. */
static int hold(void) {
	int n = 0;
	while (open("/out/held", O_RDWR | O_CREAT, 0666) >= 0) n++;
	printf("held %d\n", n);
	return 0;
}

/* files: everything that can be done below /out. */
static int files(void) {
	char buf[16];
	if (mkdir("/out/d", 0777)) return fail("mkdir");
	if (put("/out/d/a", 100000)) return fail("put");
	if (rename("/out/d/a", "/out/b")) return fail("rename");
	int fd = open("/out/b", O_RDWR);
	if (fd < 0) return fail("open");
	if (pwrite(fd, "hello", 5, 99998) != 5) return fail("pwrite");
	if (pread(fd, buf, 8, 99996) != 7) return fail("pread");
	if (ftruncate(fd, 70000)) return fail("ftruncate");
	if (lseek(fd, 0, SEEK_END) != 70000) return fail("lseek");
	if (unlink("/out/b")) return fail("unlink");
	if (pread(fd, buf, 1, 5) != 1) return fail("pread of an unlinked file");
	close(fd);
	if (put("/out/d/small", 5)) return fail("put small");
	fd = open("/out/d/small", O_WRONLY | O_APPEND);
	if (write(fd, "tail", 4) != 4) return fail("append");
	close(fd);
	if (mkdir("/out/e", 0777) || rmdir("/out/e")) return fail("rmdir");
	if (rmdir("/out/d") == 0) return fail("rmdir of a full directory");
	return put("/out/z", 3);
}

/* escape PATH…: what each way to reach PATH answers. */
static int escape(int n, char **paths) {
	for (int i = 0; i < n; i++) {
		const char *p = paths[i];
		int fd = open(p, O_RDONLY);
		printf("open %s: %s\n", p, fd < 0 ? "refused" : "OPEN");
		fd = open(p, O_WRONLY | O_CREAT, 0666);
		printf("create %s: %s\n", p, fd < 0 ? "refused" : "OPEN");
		struct stat st;
		printf("stat %s: %s\n", p, stat(p, &st) ? "refused" : "OPEN");
		printf("symlink %s: %s\n", p, symlink(p, "/out/link") ? "refused" : "OPEN");
		printf("link %s: %s\n", p, link(p, "/out/hard") ? "refused" : "OPEN");
		printf("rename %s: %s\n", p, rename(p, "/out/moved") ? "refused" : "OPEN");
		printf("unlink %s: %s\n", p, unlink(p) ? "refused" : "OPEN");
		/* Straight to the host functions, past the path handling of the C library. */
		for (__wasi_fd_t dir = 0; dir < 8; dir++) {
			__wasi_fd_t got;
			if (__wasi_path_open(dir, 1, p, 0, __WASI_RIGHTS_FD_READ, 0, 0, &got) == 0) printf("raw %d %s: OPEN\n", dir, p);
		}
	}
	return 0;
}

/* socket: every host function about sockets on every descriptor. */
static int sockets(void) {
	int open = 0;
	for (__wasi_fd_t fd = 0; fd < 32; fd++) {
		__wasi_fd_t got;
		__wasi_size_t n;
		__wasi_roflags_t flags;
		char buf[4] = "hi";
		__wasi_iovec_t in = {(uint8_t *)buf, sizeof buf};
		__wasi_ciovec_t out = {(uint8_t *)buf, 2};
		open += __wasi_sock_accept(fd, 0, &got) == 0;
		open += __wasi_sock_recv(fd, &in, 1, 0, &n, &flags) == 0;
		open += __wasi_sock_send(fd, &out, 1, 0, &n) == 0;
		open += __wasi_sock_shutdown(fd, 3) == 0;
	}
	printf("sockets %d\n", open);
	return 0;
}

static volatile char sink;
static volatile int bottom = -1;

static int deeper(int n) {
	volatile char frame[1024];
	frame[n % 1024] = (char)n;
	if (n == bottom) return 0;
	int below = deeper(n + 1);
	return below + frame[n % 1024];
}

int main(int argc, char **argv) {
	const char *mode = argc > 1 ? argv[1] : "";
	long long number = argc > 2 ? atoll(argv[argc - 1]) : 0;
	if (!strcmp(mode, "echo")) return echo(argc - 2, argv + 2);
	if (!strcmp(mode, "env")) return env();
	if (!strcmp(mode, "cat")) return cat(argc - 2, argv + 2);
	if (!strcmp(mode, "ls")) return ls(argv[2]);
	if (!strcmp(mode, "put")) return put(argv[2], number);
	if (!strcmp(mode, "many")) return many((int)number);
	if (!strcmp(mode, "hold")) return hold();
	if (!strcmp(mode, "files")) return files();
	if (!strcmp(mode, "escape")) return escape(argc - 2, argv + 2);
	if (!strcmp(mode, "socket")) return sockets();
	if (!strcmp(mode, "exit")) return (int)number;
	if (!strcmp(mode, "abort")) abort();
	if (!strcmp(mode, "recurse")) return deeper(0);
	if (!strcmp(mode, "spin")) for (;;) sink++;
	if (!strcmp(mode, "sleep")) for (;;) sleep(1000000);
	if (!strcmp(mode, "flood")) for (;;) puts("so much to say, and so little of it worth the bytes");
	if (!strcmp(mode, "print")) {
		while (number-- > 0) putchar('x');
		return 0;
	}
	if (!strcmp(mode, "hog")) {
		for (;;) {
			char *p = malloc(1 << 20);
			if (!p) {
				fputs("malloc failed\n", stderr);
				return 3;
			}
			memset(p, 1, 1 << 20);
			sink += p[123]; /* or the compiler removes it all */
		}
	}
	if (!strcmp(mode, "grab")) {
		char *volatile p = malloc(number);
		printf("malloc %s\n", p ? "gave" : "refused");
		return 0;
	}
	if (!strcmp(mode, "dirty")) {
		/* What an earlier guest left in memory that is new to this one. */
		long dirty = 0;
		unsigned char *p = (unsigned char *)(__builtin_wasm_memory_grow(0, number / 65536 + 1) * 65536);
		for (long i = 0; i < number; i++) dirty += p[i] != 0;
		memset(p, 0xAA, number);
		printf("dirty %ld %d\n", dirty, p[number - 1]);
		return 0;
	}
	return 99;
}
