package roster

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"gotong/grid"
)

// TestTornTailIsCutOff: for every length to which a power cut may have left the
// last write, what was acknowledged before is there and the file goes on.
func TestTornTailIsCutOff(t *testing.T) {
	ann, bob, cat := newActor(t), newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	path := r.journal.file.Name()
	admit(t, r, ann, bob)
	whole := readFile(t, path)
	admit(t, r, ann, cat)
	longer := readFile(t, path)
	for n := len(whole); n < len(longer); n += 29 {
		for _, torn := range [][]byte{longer[:n], zeroFrom(longer, n), append(bytes.Clone(longer[:n]), make([]byte, 4096)...)} {
			at := filepath.Join(t.TempDir(), "roster")
			writeFile(t, at, torn)
			again, err := Open(at)
			if err != nil {
				t.Fatalf("%d of %d bytes: %v", n, len(longer), err)
			}
			wantStatus(t, again.View(), bob, StatusActive)
			wantStatus(t, again.View(), cat, StatusUnknown)
			if n == len(whole) {
				admit(t, again, ann, cat)
				wantStatus(t, again.View(), cat, StatusActive)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
			if now := readFile(t, at); !bytes.Equal(now[:len(whole)], whole) {
				t.Fatal("what was acknowledged changed")
			}
		}
	}
}

func zeroFrom(data []byte, n int) []byte {
	out := bytes.Clone(data)
	clear(out[n:])
	return out
}

// TestDamageInTheMiddleIsAnError: cutting off acknowledged statements would
// make this peer contradict itself.
func TestDamageInTheMiddleIsAnError(t *testing.T) {
	ann, bob := newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	path := r.journal.file.Name()
	first := len(readFile(t, path))
	admit(t, r, ann, bob)
	good := readFile(t, path)
	for _, i := range []int{0, 20, journalHeader - 1, journalHeader, journalHeader + 5, journalHeader + 13, journalHeader + 40, first - 1} {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		at := filepath.Join(t.TempDir(), "roster")
		writeFile(t, at, bad)
		if _, err := Open(at); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d: %v", i, err)
		}
		if !bytes.Equal(readFile(t, at), bad) {
			t.Errorf("byte %d: the damaged file was changed", i)
		}
	}
}

func TestOpenAndImportRefuse(t *testing.T) {
	ann, bob := newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	g := r.View().Grid()
	path := filepath.Join(t.TempDir(), "roster")
	if _, err := Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Import(path, g, nil); !errors.Is(err, ErrNoGenesis) {
		t.Errorf("no statements: %v", err)
	}
	if _, err := Import(path, grid.GridID{1}, r.All()); !errors.Is(err, ErrStatement) {
		t.Errorf("statements of another grid: %v", err)
	}
	if _, err := Import(r.journal.file.Name(), g, r.All()); !errors.Is(err, ErrExists) {
		t.Errorf("over another roster: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a failed import left a file: %v", err)
	}
	other := newRosterOf(t, bob)
	if _, err := r.Merge(other.All()); !errors.Is(err, ErrStatement) || len(r.Hashes()) != 1 {
		t.Errorf("merge of another grid: %v", err)
	}
}

func TestFailedWriteChangesNothing(t *testing.T) {
	ann, bob := newActor(t), newActor(t)
	r := newRosterOf(t, ann)
	if err := r.journal.close(); err != nil { // every write fails from here on
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Admit(ann.node, bob.params(r.View().Grid(), ann.id())); err == nil {
			t.Fatal("admitted without writing")
		}
	}
	wantStatus(t, r.View(), bob, StatusUnknown)
	if len(r.Hashes()) != 1 {
		t.Error("an unwritten statement is in the set")
	}
}

func TestMergeManyInSeveralEntries(t *testing.T) {
	dir := t.TempDir()
	var items [][]byte
	for i := range 700 {
		items = append(items, bytes.Repeat([]byte{byte(i)}, 16<<10))
	}
	path := filepath.Join(dir, "journal")
	if err := createJournal(path, rosterMagic, grid.GridID{3}, items[:5]); err != nil {
		t.Fatal(err)
	}
	j, _, _, err := openJournal(path, rosterMagic)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.append(items[5:]), j.close()); err != nil {
		t.Fatal(err)
	}
	again, g, got, err := openJournal(path, rosterMagic)
	if err != nil || g != (grid.GridID{3}) || len(got) != len(items) {
		t.Fatalf("%d items: %v", len(got), err)
	}
	defer again.close()
	for i := range items {
		if !bytes.Equal(got[i], items[i]) {
			t.Fatalf("item %d changed", i)
		}
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func FuzzParseJournal(f *testing.F) {
	whole := journalHead(rosterMagic, grid.GridID{9})
	for _, entry := range entriesOf([][]byte{[]byte("one"), {}, []byte("three")}) {
		whole = append(whole, entry...)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-2])
	f.Add(append(bytes.Clone(whole), entryOf([]byte{0, 0, 0, 9})...))
	f.Add([]byte(rosterMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, items, good, err := parseJournal(rosterMagic, data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again := journalHead(rosterMagic, g)
		_, back, size, err := parseJournal(rosterMagic, data[:good])
		if err != nil || size != good || len(back) != len(items) || !bytes.HasPrefix(data, again) {
			t.Fatal(fmt.Errorf("cut to %d bytes it reads differently: %w", good, err))
		}
	})
}
