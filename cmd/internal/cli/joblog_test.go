package cli

import (
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	controlv1 "gotong/proto/control/v1"
)

func TestJoblogsAreContinued(t *testing.T) {
	path := t.TempDir() + "/log"
	log, skip, err := openJoblog(path, false, false)
	if err != nil || len(skip) != 0 {
		t.Fatal(skip, err)
	}
	for i, task := range []*controlv1.RunTask{
		{State: "done"},
		{State: "failed", ExitCode: 3},
		{State: "limit", Limit: "wall", ExitCode: -1},
		{State: "failed", ExitCode: -1},
		{State: "lost", ExitCode: -1},
		{State: "done"},
	} {
		task.Index = uint64(i)
		if err := log.add(task, []string{"p", "a\tb\nc"}); err != nil {
			t.Fatal(err)
		}
	}
	// A crash in the midst of a line.
	if _, err := log.file.WriteString("7\tada\t1.0"); err != nil {
		t.Fatal(err)
	}
	log.close()
	for failed, want := range map[bool][]uint64{false: {1, 2, 3, 4, 5, 6}, true: {1, 6}} {
		log, skip, err := openJoblog(path, !failed, failed)
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(maps.Keys(skip)); !slices.Equal(got, want) {
			t.Errorf("failed %v: %v, want %v", failed, got, want)
		}
		log.close()
	}
	log, _, err = openJoblog(path, false, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.add(&controlv1.RunTask{Index: 1, State: "done"}, nil); err != nil {
		t.Fatal(err)
	}
	log.close()
	if log, skip, err = openJoblog(path, false, true); err != nil || !skip[2] || skip[3] {
		t.Error(skip, err)
	}
	log.close()
	if log, skip, err = openJoblog(path, false, false); err != nil || len(skip) != 0 {
		t.Error("a new log has old tasks:", skip, err)
	}
	log.close()
}

// TestShellWordsAreReadByAShell gives words to bash and compares.
func TestShellWordsAreReadByAShell(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash here")
	}
	word := rapid.StringMatching(`[a-z '"\\$*#!&|;<>(){}\[\]~\n\t\x01é-]{0,6}`)
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(word, 1, 4).Draw(t, "words")
		text := shellWords(words)
		if strings.ContainsAny(text, "\n\t") {
			t.Fatalf("%q is no line of a table", text)
		}
		out, err := exec.Command(bash, "-c", `printf '%s\0' `+text).Output()
		if err != nil || string(out) != strings.Join(words, "\x00")+"\x00" {
			t.Fatalf("%q as %s: %q, %v", words, text, out, err)
		}
	})
}

func FuzzReadJoblog(f *testing.F) {
	f.Add(joblogHeader + "\n1\t:\t1.0\t0.1\t0\t0\t0\t0\techo\n2\t:\t1.0\t0.1\t0\t0\t-1\t15\tsleep 9\n")
	f.Add("Seq\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, failed := range []bool{false, true} {
			skip, end, err := readJoblog(strings.NewReader(text), failed)
			if err != nil {
				continue
			}
			if end < 0 || end > int64(len(text)) || skip[0] {
				t.Errorf("ends at %d of %d, %v", end, len(text), skip)
			}
		}
	})
}
