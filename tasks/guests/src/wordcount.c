// wordcount FILE SLICE SLICES: counts the words whose first letter lies in
// byte slice SLICE (0 to SLICES-1) of FILE, so that the sums over all slices
// are exactly the counts of the file. A word is a run of at least three ASCII
// letters, in lower case. Prints "count word" lines in the order of the words.
// A FILE without a slash is one of the inputs.
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHORTEST = 3, BLOCK = 64 << 10 };

typedef struct {
  char *word;
  size_t len;
  uint64_t count;
  uint32_t hash;
} entry_t;

static entry_t *table;
static size_t slots, used;

static _Noreturn void die(int code, const char *why) {
  write(2, "wordcount: ", 11);
  write(2, why, strlen(why));
  write(2, "\n", 1);
  exit(code);
}

static void *or_die(void *p) {
  if (!p) die(71, "out of memory");
  return p;
}

static entry_t *find(const char *word, size_t len, uint32_t hash) {
  size_t i = hash & (slots - 1);
  while (table[i].word &&
         (table[i].hash != hash || table[i].len != len || memcmp(table[i].word, word, len)))
    i = (i + 1) & (slots - 1);
  return &table[i];
}

static void grow(void) {
  entry_t *old = table;
  size_t n = slots;
  slots = slots ? slots * 2 : 4096;
  table = or_die(calloc(slots, sizeof *table));
  for (size_t i = 0; i < n; i++)
    if (old[i].word) *find(old[i].word, old[i].len, old[i].hash) = old[i];
  free(old);
}

static void count(const char *word, size_t len) {
  if (len < SHORTEST) return;
  uint32_t hash = 2166136261u;
  for (size_t i = 0; i < len; i++) hash = (hash ^ (uint8_t)word[i]) * 16777619u;
  if (used * 2 >= slots) grow();
  entry_t *e = find(word, len, hash);
  if (!e->word) {
    e->word = or_die(malloc(len));
    memcpy(e->word, word, len);
    e->len = len;
    e->hash = hash;
    used++;
  }
  e->count++;
}

static inline int letter(unsigned char c) {
  unsigned char l = c | 0x20;
  return l >= 'a' && l <= 'z' ? l : 0;
}

// scan counts the words that start in [start, end) of fd. It begins one byte
// early, to see whether the first letter continues a word, and runs past the
// end until the last word is over.
static void scan(int fd, uint64_t start, uint64_t end) {
  static char block[BLOCK];
  size_t len = 0, room = 256;
  char *word = or_die(malloc(room));
  uint64_t at = start ? start - 1 : 0;
  int skip = start > 0;  // inside a word that started before the slice
  if (lseek(fd, (off_t)at, SEEK_SET) < 0) die(74, "cannot seek");
  ssize_t n;
  while ((n = read(fd, block, sizeof block)) > 0) {
    for (ssize_t i = 0; i < n; i++, at++) {
      int l = letter((unsigned char)block[i]);
      if (l && skip) continue;
      if (l && (len || at < end)) {
        if (len == room) word = or_die(realloc(word, room *= 2));
        word[len++] = (char)l;
        continue;
      }
      skip = 0;
      count(word, len);
      len = 0;
      if (at >= end) return;
    }
  }
  if (n < 0) die(74, "cannot read");
  count(word, len);
}

static int by_word(const void *a, const void *b) {
  const entry_t *x = a, *y = b;
  int c = memcmp(x->word, y->word, x->len < y->len ? x->len : y->len);
  return c ? c : (x->len > y->len) - (x->len < y->len);
}

static void write_all(const char *p, size_t n) {
  for (ssize_t w; n > 0; p += w, n -= (size_t)w)
    if ((w = write(1, p, n)) <= 0) die(74, "cannot write");
}

// print sorts the table in place: the words are no longer looked up.
static void print(void) {
  static char buf[BLOCK];
  size_t n = 0, fill = 0;
  for (size_t i = 0; i < slots; i++)
    if (table[i].word) table[n++] = table[i];
  qsort(table, n, sizeof *table, by_word);
  for (size_t i = 0; i < n; i++) {
    char digits[24];
    size_t at = sizeof digits;
    digits[--at] = ' ';
    for (uint64_t c = table[i].count; c; c /= 10) digits[--at] = (char)('0' + c % 10);
    size_t need = sizeof digits - at + table[i].len + 1;
    if (fill + need > sizeof buf) {
      write_all(buf, fill);
      fill = 0;
    }
    if (need > sizeof buf) {  // a word longer than the buffer
      write_all(digits + at, sizeof digits - at);
      write_all(table[i].word, table[i].len);
      write_all("\n", 1);
      continue;
    }
    memcpy(buf + fill, digits + at, sizeof digits - at);
    memcpy(buf + fill + sizeof digits - at, table[i].word, table[i].len);
    fill += need;
    buf[fill - 1] = '\n';
  }
  write_all(buf, fill);
}

// bound returns size*slice/slices without overflow.
static uint64_t bound(uint64_t size, uint64_t slice, uint64_t slices) {
  return size / slices * slice + size % slices * slice / slices;
}

int main(int argc, char **argv) {
  if (argc != 4) die(2, "usage: wordcount FILE SLICE SLICES");
  uint64_t slice = strtoull(argv[2], 0, 10), slices = strtoull(argv[3], 0, 10);
  if (slice >= slices || slices > 1u << 31) die(2, "SLICE must be below SLICES");
  char path[512] = "/in/";
  if (strlen(argv[1]) >= sizeof path - 4) die(2, "name too long");
  strcpy(path + (strchr(argv[1], '/') ? 0 : 4), argv[1]);
  int fd = open(path, O_RDONLY);
  struct stat st;
  if (fd < 0 || fstat(fd, &st)) die(66, "cannot open the file");
  uint64_t size = (uint64_t)st.st_size;
  scan(fd, bound(size, slice, slices), bound(size, slice + 1, slices));
  print();
  return 0;
}
