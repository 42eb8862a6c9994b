package benchmarks

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotong/grid/localgrid"
)

// TestData: what is generated has the size that was asked for, follows from the
// seed alone, and a changed or lost file is noticed.
func TestData(t *testing.T) {
	dir := t.TempDir()
	for name, write := range map[string]func(dir string, seed byte) error{
		"random":  func(dir string, seed byte) error { return writeRandom(dir, seed, 2) },
		"sources": func(dir string, seed byte) error { return writeSources(dir, seed, 300) },
		"small":   func(dir string, seed byte) error { return writeSmall(dir, seed, smallPerDir+1) },
	} {
		paths := make([]string, 3)
		for i, seed := range []byte{1, 1, 2} {
			paths[i] = filepath.Join(dir, name, string(rune('a'+i)))
			if err := write(paths[i], seed); err != nil {
				t.Fatal(err)
			}
		}
		if err := sameTree(paths[0], paths[1]); err != nil {
			t.Errorf("%s: one seed, but %v", name, err)
		}
		if err := sameTree(paths[0], paths[2]); err == nil {
			t.Errorf("%s: two seeds gave one tree", name)
		}
	}
	big := filepath.Join(dir, "big")
	if err := writeSparse(big, 1, 65); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(big); err != nil || info.Size() < 65<<20 {
		t.Errorf("a sparse file of 65 MiB: %v, %v", info, err)
	}
	if err := sameTree(dir, filepath.Join(dir, "random")); err == nil {
		t.Error("files were lost and nothing was noticed")
	}
}

// TestTable: medians, ranges and ratios come out as a reader expects them.
func TestTable(t *testing.T) {
	var results board
	if !results.empty() || results.markdown() != "" {
		t.Error("a board without tables says something")
	}
	table := results.newTable("Some work", map[string]string{"carry": "≤ 0.6 × rival"})
	if !results.empty() {
		t.Error("a table without rows counts")
	}
	for i, value := range []float64{3, 1, 2} {
		table.add("carry", seconds, "rival", 4*value)
		table.add("carry", seconds, product, value)
		if i == 0 {
			table.add("lift", millis, product, value)
		}
	}
	table.note("Not compared with %s.", "others")
	table.note("Not compared with %s.", "others")
	text := results.markdown()
	for _, line := range []string{
		"| work | unit | gotong | rival | gotong ÷ rival | asked for |",
		"| carry | s | 2.00 (1.00–3.00) | 8.00 (4.00–12.0) | 0.25 | ≤ 0.6 × rival |",
		"| lift | ms | 3.00 |  |  |  |",
	} {
		if !slices.Contains(strings.Split(text, "\n"), line) {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
	if strings.Count(text, "Not compared") != 1 {
		t.Errorf("a note is there more than once or not at all:\n%s", text)
	}
	if got := median([]float64{1, 10, 2, 3}); got != 2.5 {
		t.Errorf("median %v", got)
	}
}

// TestSettings: sizes come from the environment, and nonsense is refused.
func TestSettings(t *testing.T) {
	env := map[string]string{"BENCH_MIB": "10240", "BENCH_RESULT": "large", "BENCH_SMALL": "1000000"}
	get := func(name string) string { return env[name] }
	s, err := readSettings(get)
	if err != nil || s.MiB != 10240 || s.Files != defaultFiles || s.Result != "large" || s.Small != 1_000_000 || !slices.Equal(s.Memory, []int{10240}) {
		t.Errorf("%+v, %v", s, err)
	}
	env["BENCH_MEMORY"] = "1024,10240"
	if s, err := readSettings(get); err != nil || !strings.HasSuffix(s.String(), "BENCH_MEMORY=1024,10240") {
		t.Errorf("%s, %v", s, err)
	}
	for name, bad := range map[string]string{"BENCH_TASKS": "many", "BENCH_FILES": "0", "BENCH_RESULT": "../up", "BENCH_MEMORY": "none"} {
		env = map[string]string{name: bad}
		if _, err := readSettings(get); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s=%s: %v", name, bad, err)
		}
	}
}

// TestProcess: the figures of a process are read where the system gives them.
func TestProcess(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip(errNoProc)
	}
	stop := watch(t.Context(), os.Getpid())
	peaks, err := stop()
	if err != nil || peaks[0].anonymous <= 0 || peaks[0].total < peaks[0].anonymous {
		t.Errorf("peaks %+v, %v", peaks, err)
	}
	if used, err := cpuTimes(os.Getpid(), os.Getpid()); err != nil || used < 0 {
		t.Errorf("CPU seconds %v, %v", used, err)
	}
}

// TestReads: pieces are read and compared, and one that differs is noticed.
func TestReads(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"source", "same", "other"} {
		if err := writeRandomFile(filepath.Join(dir, name), byte(i/2), 3); err != nil {
			t.Fatal(err)
		}
	}
	var results board
	table := results.newTable("Reads", nil)
	read := func(name string) error {
		return table.readMounted(t.Context(), name, filepath.Join(dir, "source"), filepath.Join(dir, name), time.Now(), 1)
	}
	if err := read("same"); err != nil || table.repeats != readsAmong {
		t.Errorf("%d samples, %v", table.repeats, err)
	}
	if err := read("other"); err == nil {
		t.Error("another file passed for the source")
	}
}

// TestShards: shards are counted where peers keep them, in a wiped home too, and
// one that comes back ends the waiting.
func TestShards(t *testing.T) {
	peers := []*localgrid.Peer{{Home: t.TempDir()}, {Home: t.TempDir()}}
	keep := func(name string) {
		path := filepath.Join(shardDir(peers[0]), "shards", "ab", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := writeFrom(path, strings.NewReader("12345")); err != nil {
			t.Fatal(err)
		}
	}
	keep("one")
	if sum, err := shardsBelow(peers); err != nil || sum != (shards{1, 5}) {
		t.Fatalf("%+v, %v", sum, err)
	}
	done := make(chan error)
	go func() { done <- shardsBack(t.Context(), peers, shards{2, 10}) }()
	keep("two")
	if err := <-done; err != nil {
		t.Error(err)
	}
}
