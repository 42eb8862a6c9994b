package vault

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// lose changes the vault on disk while it is closed, and opens it again.
func (f *fixture) lose(change func() error) {
	f.t.Helper()
	f.close()
	if err := change(); err != nil {
		f.t.Fatal(err)
	}
	f.open()
}

func (f *fixture) snapshots(want int) {
	f.t.Helper()
	all, err := f.v.Snapshots(context.Background())
	if err != nil || len(all) != want {
		f.t.Errorf("%d snapshots, want %d: %v", len(all), want, err)
	}
}

// TestDamagedHeadIsTakenBack: a head file that cannot be read does not keep the
// vault shut. The head comes back from peers, because its file shows that this
// disk had it, and the next backup goes through.
func TestDamagedHeadIsTakenBack(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"truncated": func(path string) error { return os.Truncate(path, 20) },
		"empty":     func(path string) error { return os.Truncate(path, 0) },
		"garbage":   func(path string) error { return os.WriteFile(path, []byte("garbage"), 0o600) },
	} {
		for _, index := range []string{"with", "without"} {
			t.Run(name+" "+index+" index", func(t *testing.T) {
				f := newFixture(t)
				f.backup([]byte("one"))
				f.backup([]byte("two"))
				f.lose(func() error {
					if index == "without" {
						if err := os.Remove(filepath.Join(f.dir, indexName)); err != nil {
							return err
						}
					}
					return damage(filepath.Join(f.dir, headsName, headName(2)))
				})
				f.reopen() // what was noticed is remembered
				f.snapshots(2)
				f.backup([]byte("three"))
				f.reopen()
				f.snapshots(3)
				if seq := f.v.Head().Seq; seq != 3 {
					t.Errorf("head %d", seq)
				}
			})
		}
	}
}

// TestLostHeadsAreReadFromPeers: a disk without any head reads what peers have.
// It writes only when the index shows that it knew their newest.
func TestLostHeadsAreReadFromPeers(t *testing.T) {
	f := newFixture(t)
	f.backup([]byte("one"))
	f.backup([]byte("two"))
	heads, index := filepath.Join(f.dir, headsName), filepath.Join(f.dir, indexName)
	f.lose(func() error { return os.RemoveAll(heads) })
	f.snapshots(2)
	f.backup([]byte("three"))

	f.lose(func() error { return errors.Join(os.RemoveAll(heads), os.Remove(index)) })
	f.segments.fault = func(string) error { return errFault }
	if _, err := f.v.Snapshots(context.Background()); err != nil {
		t.Errorf("no peer answers: %v", err)
	}
	f.segments.fault = nil
	f.snapshots(3)
	if _, _, err := f.tryBackup([]byte("four")); !errors.Is(err, ErrNewerHead) {
		t.Errorf("backup without evidence: %v", err)
	}
	f.reopen()
	f.snapshots(3)
}

// TestDamagedHeadOfACopyIsNotTakenBack: a restored disk whose newest head is
// broken besides still refuses to write after what others know.
func TestDamagedHeadOfACopyIsNotTakenBack(t *testing.T) {
	f := newFixture(t)
	f.backup([]byte("one"))
	f.backup([]byte("two"))
	f.close()
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	f.open()
	f.backup([]byte("three"))
	f.close()
	f.dir = old
	if err := os.Truncate(filepath.Join(old, headsName, headName(2)), 5); err != nil {
		t.Fatal(err)
	}
	f.open()
	f.snapshots(3)
	if _, _, err := f.tryBackup([]byte("four")); !errors.Is(err, ErrNewerHead) {
		t.Errorf("backup from a restored disk: %v", err)
	}
}
