package jobs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"gotong/grid/blake3"
	"gotong/grid/disk/disktest"
	"gotong/tasks"
)

// keeperAtWork keeps two jobs and removes one.
type keeperAtWork struct {
	t         *testing.T
	kept      Plan
	raw, gone []byte // signed
	content   []byte
	id        tasks.ContentID
}

func newKeeperAtWork(t *testing.T) *keeperAtWork {
	k := &keeperAtWork{t: t, kept: planOf(t, 4), content: []byte(strings.Repeat("content", 1000))}
	k.id = blake3.Sum256(k.content)
	other := planOf(t, 1)
	other.Job = tasks.JobID{8}
	for raw, plan := range map[*[]byte]Plan{&k.raw: k.kept, &k.gone: other} {
		signed, err := SignPlan(keyOf(1), plan)
		if err != nil {
			t.Fatal(err)
		}
		*raw = signed
	}
	return k
}

// open opens the store, and may find that the disk does not allow it.
func (k *keeperAtWork) open(dir string) (*Store, error) { return Open(filepath.Join(dir, "jobs"), nil) }

func (k *keeperAtWork) work(dir string, say func(string)) {
	s, err := k.open(dir)
	if err != nil {
		return
	}
	defer s.Close()
	moved := filepath.Join(dir, "content")
	if err := os.WriteFile(moved, k.content, 0o600); err != nil {
		return
	}
	if _, err := s.CreateWith(k.gone, map[tasks.ContentID]string{k.id: moved}); err == nil {
		say("other")
	}
	j, err := s.Create(k.raw)
	if err != nil {
		return
	}
	say("created")
	for i := range 3 {
		if j.Append(recordOf(signedResults(k.t, k.kept, keyOf(2), tasks.StateDone, "text", i)...)) == nil {
			say(fmt.Sprint("result ", i))
		}
		if i == 1 && j.KeepContent(k.id, strings.NewReader(string(k.content))) == nil {
			say("content")
		}
	}
	say("removing")
	if s.Remove(tasks.JobID{8}) == nil {
		say("removed")
	}
}

func (k *keeperAtWork) check(dir string, said []string, when string) {
	t := k.t
	s, err := k.open(dir)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	defer s.Close()
	heard := func(line string) bool { return slices.Contains(said, line) }
	j, err := s.Job(k.kept.Job)
	if heard("created") && err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	for i := range 3 {
		if j == nil {
			break
		}
		r, ok, err := j.Result(i)
		if err != nil || heard(fmt.Sprint("result ", i)) && !ok || ok && r.Verify(k.kept.Job) != nil {
			t.Fatalf("%s: result %d: %v %v", when, i, ok, err)
		}
	}
	if heard("content") {
		if b, err := os.ReadFile(j.ContentPath(k.id)); err != nil || string(b) != string(k.content) {
			t.Fatalf("%s: content: %v", when, err)
		}
	}
	other, err := s.Job(tasks.JobID{8})
	switch {
	case err == nil && heard("removed"):
		t.Fatalf("%s: removed job is back", when)
	case err != nil && heard("other") && !heard("removing"):
		t.Fatalf("%s: %v", when, err)
	case err == nil:
		if b, err := os.ReadFile(other.ContentPath(k.id)); err != nil || string(b) != string(k.content) {
			t.Fatalf("%s: content: %v", when, err)
		}
	}
	k.tidy(dir, when)
}

// tidy fails when something lies there that belongs to no job.
func (k *keeperAtWork) tidy(dir, when string) {
	err := fs.WalkDir(os.DirFS(filepath.Join(dir, "jobs")), ".", func(name string, entry fs.DirEntry, err error) error {
		id, _, _ := strings.Cut(name, "/")
		if _, bad := tasks.ParseJobID(id); name != "." && bad != nil || strings.HasSuffix(name, ".tmp") {
			k.t.Errorf("%s: %s was left behind", when, name)
		}
		return err
	})
	if err != nil {
		k.t.Error(err)
	}
}

// TestJobAtEveryCall stops the process of a keeper at each call that changes a
// file of its jobs.
func TestJobAtEveryCall(t *testing.T) {
	k := newKeeperAtWork(t)
	disktest.EachCall(t, disktest.Case{Faults: []syscall.Errno{syscall.EIO, syscall.ENOSPC}, Calls: 20,
		Work: k.work,
		Check: func(dir string, said []string, when string) {
			k.check(dir, said, when)
			var again []string
			k.work(dir, func(line string) { again = append(again, line) })
			if len(again) != 8 {
				t.Fatalf("%s: done again: %q", when, again)
			}
			k.check(dir, again, when+", done again")
		}})
}
