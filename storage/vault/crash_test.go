package vault

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
)

// faultyFiles fails like fakeSegments does.
type faultyFiles struct {
	disk  diskFiles
	fault func(op string) error
}

func (f faultyFiles) writeDurable(path string, data []byte) error {
	if err := f.fault("write"); err != nil {
		return err
	}
	if err := f.disk.writeDurable(path, data); err != nil {
		return err
	}
	return f.fault("written")
}

// steps counts operations and fails all from the n-th on, as if the process had
// been killed there. Questions that are asked in the background do not count:
// when they come is not certain.
type steps struct {
	mu   sync.Mutex
	n    int
	log  []string
	hook func(op string) // at the n-th
}

func (s *steps) fault(op string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.HasPrefix(op, "find") {
		return nil
	}
	s.log = append(s.log, op)
	if len(s.log) == s.n && s.hook != nil {
		s.hook(op)
	}
	if s.n > 0 && len(s.log) >= s.n && s.hook == nil {
		return errFault
	}
	return nil
}

// TestStopAtEveryStep fails a backup at each operation on peers or disk in turn.
// Whatever the step, what was there before restores and the next backup goes
// through.
func TestStopAtEveryStep(t *testing.T) {
	first, second := randomBytes(1, 18<<20), randomBytes(2, 18<<20)
	for n := 1; ; n++ {
		f := newFixture(t)
		f.v.config.PacksInFlight = 1
		ref1, _ := f.backup(first)
		s := &steps{n: n}
		f.close()
		f.files = faultyFiles{fault: s.fault}
		f.open()
		f.segments.fault = s.fault
		_, _, err := f.tryBackup(first, second)
		f.segments.fault = nil
		f.files = diskFiles{}
		if len(s.log) < n {
			if n < 6 {
				t.Errorf("only %d steps were seen: %q", len(s.log), s.log)
			}
			f.close()
			return
		}
		if err == nil && s.log[n-1] != "publish" {
			t.Errorf("backup reports success though step %d (%s) failed", n, s.log[n-1])
		}
		f.reopen()
		f.checkGoesOn(ref1, first, second)
		f.close()
	}
}

// TestKillAtEveryStep copies the vault at each operation, as a kill would leave
// it, and goes on from the copy.
func TestKillAtEveryStep(t *testing.T) {
	first, second := randomBytes(1, 18<<20), randomBytes(2, 18<<20)
	for n := 1; ; n++ {
		f := newFixture(t)
		ref1, _ := f.backup(first)
		killed := t.TempDir()
		var at string
		s := &steps{n: n, hook: func(op string) {
			at = op
			if err := os.CopyFS(killed, os.DirFS(f.dir)); err != nil {
				t.Error(err)
			}
		}}
		f.close()
		f.files = faultyFiles{fault: s.fault}
		f.open()
		f.segments.fault = s.fault
		f.backup(second)
		f.segments.fault = nil
		f.close()
		if at == "" {
			return
		}
		// What peers learnt after the kill never happened.
		f.segments.heads = f.segments.heads[:1]
		f.files, f.dir = diskFiles{}, killed
		f.open()
		f.checkGoesOn(ref1, first, second)
		f.close()
	}
}

func (f *fixture) checkGoesOn(ref1 Ref, first, second []byte) {
	f.t.Helper()
	if !bytes.Equal(f.read(ref1), first) {
		f.t.Error("the earlier snapshot came back different")
	}
	before, err := f.v.Snapshots(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	ref2, result := f.backup(second)
	if !bytes.Equal(f.read(ref2), second) {
		f.t.Error("the later snapshot came back different")
	}
	if result.HeadHolders == 0 {
		f.t.Error("the head is with nobody")
	}
	after, err := f.v.Snapshots(context.Background())
	if err != nil || len(after) != len(before)+1 {
		f.t.Errorf("%d snapshots after %d, %v", len(after), len(before), err)
	}
}

// TestCommittedPacksAreUsedAgain stops a session after some packs were stored.
func TestCommittedPacksAreUsedAgain(t *testing.T) {
	f := newFixture(t)
	content := randomBytes(1, 80<<20)
	puts := 0
	f.segments.fault = func(op string) error {
		if op == "put" {
			if puts++; puts > 3 {
				return errFault
			}
		}
		return nil
	}
	if _, _, err := f.tryBackup(content); !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	f.segments.fault = nil
	f.reopen()
	_, result := f.backup(content)
	if result.Stats.NewBytes > 40<<20 {
		t.Errorf("%d bytes were stored again", result.Stats.NewBytes)
	}
}
