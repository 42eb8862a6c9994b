package vault

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gotong/grid"
	"gotong/grid/disk/disktest"
	"gotong/storage"
)

// friendsName is the file in which a process finds what friends keep.
const friendsName = "friends"

// toldSegments says what friends are given, so that another process knows.
type toldSegments struct {
	vaultSegments
	say func(line string)
}

func (s toldSegments) Put(ctx context.Context, data []byte) (Stored, error) {
	s.say("put " + hex.EncodeToString(data))
	return s.vaultSegments.Put(ctx, data)
}

func (s toldSegments) PublishHeads(ctx context.Context, raw [][]byte) (int, error) {
	for _, head := range raw {
		s.say("head " + hex.EncodeToString(head))
	}
	return s.vaultSegments.PublishHeads(ctx, raw)
}

func (s toldSegments) Delete(ctx context.Context, raw [][]byte) (acked, silent []grid.PeerID, err error) {
	for _, deletion := range raw {
		s.say("delete " + hex.EncodeToString(deletion))
	}
	return s.vaultSegments.Delete(ctx, raw)
}

// take gives friends what a line says; false: it says something else.
func (v vaultSegments) take(t *testing.T, line string) bool {
	what, text, _ := strings.Cut(line, " ")
	data, damaged := hex.DecodeString(text)
	var err error
	switch what {
	case "put":
		_, err = v.Put(t.Context(), data)
	case "head":
		_, err = v.PublishHeads(t.Context(), [][]byte{data})
	case "delete":
		_, _, err = v.Delete(t.Context(), [][]byte{data})
	default:
		return false
	}
	if err := errors.Join(err, damaged); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return true
}

// openBeside opens the vault in dir with friends that keep what lines say. The
// other lines are returned.
func openBeside(t *testing.T, dir string, lines []string, say func(string)) (f *fixture, rest []string) {
	f = &fixture{t: t, dir: filepath.Join(dir, "vault"), segments: newFakeSegments(), files: diskFiles{}}
	friends := vaultSegments{f.segments, storage.VaultID{7}}
	for _, line := range lines {
		if !friends.take(t, line) {
			rest = append(rest, line)
		}
	}
	f.config = testConfig(toldSegments{friends, say})
	f.config.PacksInFlight = 1
	return f, rest
}

func smallFiles(seeds ...byte) map[string][]byte {
	files := map[string][]byte{}
	for _, seed := range seeds {
		files[string('a'+rune(seed))] = randomBytes(seed, 3000)
	}
	return files
}

// ownerAtWork is an owner's device, and what it was told to be done.
type ownerAtWork struct {
	t        *testing.T
	prepared string   // a directory with a vault of two snapshots
	friends  []string // what they were given for these
	first    SnapshotID
	second   SnapshotID
}

func newOwnerAtWork(t *testing.T) *ownerAtWork {
	o := &ownerAtWork{t: t, prepared: t.TempDir()}
	f, _ := openBeside(t, o.prepared, nil, func(line string) { o.friends = append(o.friends, line) })
	if err := Create(f.dir, testSecrets(t)); err != nil {
		t.Fatal(err)
	}
	f.open()
	defer f.close()
	o.first = f.tree(smallFiles(1, 2)).Snapshot.ID
	o.second = f.tree(smallFiles(2, 3)).Snapshot.ID
	if err := os.WriteFile(filepath.Join(o.prepared, friendsName), []byte(strings.Join(o.friends, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

// work backs up, forgets the oldest snapshot and prunes.
func work(t *testing.T, dir string, say func(string)) {
	friends, err := os.ReadFile(filepath.Join(dir, friendsName))
	if err != nil {
		t.Fatal(err)
	}
	f, _ := openBeside(t, dir, strings.Split(string(friends), "\n"), say)
	if f.v, err = Open(f.dir, f.config); err != nil {
		return
	}
	defer f.v.Close()
	if result, err := f.tryTree(smallFiles(3, 4)); err == nil {
		say("backed-up " + result.Snapshot.ID.String())
	}
	all, err := f.v.Snapshots(t.Context())
	if err != nil || len(all) == 0 {
		return
	}
	say("forgetting")
	if f.v.Forget(t.Context(), []SnapshotID{all[0].ID}) == nil {
		say("forgot")
	}
	if _, err := f.v.Prune(t.Context(), PruneOptions{safeAge: time.Nanosecond}); err == nil {
		say("pruned")
	}
}

// check goes on with what was left: nothing that was done is undone, and all
// that is there reads as it was written.
func (o *ownerAtWork) check(dir string, said []string, when string) {
	t := o.t
	f, told := openBeside(t, dir, slices.Concat(o.friends, said), func(string) {})
	f.open()
	defer f.close()
	trees := map[SnapshotID]map[string][]byte{o.second: smallFiles(2, 3)}
	forgetting, forgot := slices.Contains(told, "forgetting"), slices.Contains(told, "forgot")
	all, err := f.v.Snapshots(t.Context())
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	for _, s := range all {
		switch {
		case s.ID == o.first && !forgot:
			trees[s.ID] = smallFiles(1, 2)
		case s.ID != o.first && s.ID != o.second:
			trees[s.ID] = smallFiles(3, 4)
		}
	}
	for _, line := range told {
		id, acked := strings.CutPrefix(line, "backed-up ")
		if acked && !slices.ContainsFunc(all, func(s Snapshot) bool { return s.ID.String() == id }) {
			t.Fatalf("%s: the new snapshot is gone", when)
		}
	}
	if _, there := trees[o.first]; !there && !forgetting || len(trees) > 3 {
		t.Fatalf("%s: %d snapshots", when, len(trees))
	}
	f.checkTrees(trees)
	f.goesOn(trees)
	if t.Failed() {
		t.Fatal(when)
	}
}

// goesOn does all that a vault can do, down to its being empty.
func (f *fixture) goesOn(trees map[SnapshotID]map[string][]byte) {
	f.t.Helper()
	trees[f.tree(smallFiles(4, 5)).Snapshot.ID] = smallFiles(4, 5)
	f.prune(PruneOptions{safeAge: time.Nanosecond})
	f.checkTrees(trees)
	if report := f.check(CheckOptions{ReadData: 1}); !report.OK() {
		f.t.Errorf("%+v", report)
	}
	f.checkIndexAnew(trees)
	f.forget(slices.Collect(maps.Keys(trees))...)
	f.prune(PruneOptions{safeAge: time.Nanosecond})
	if n := len(f.segments.segments); n != 1 {
		f.t.Errorf("%d segments of an empty vault", n)
	}
	err := filepath.WalkDir(f.dir, func(path string, entry fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".tmp") {
			f.t.Errorf("%s was left behind", path)
		}
		return err
	})
	if err != nil {
		f.t.Error(err)
	}
}

// TestBackupAtEveryCall stops the process of an owner, who backs up, forgets and
// prunes, at each call that changes a file of the vault. Friends keep what they
// were given until then.
func TestBackupAtEveryCall(t *testing.T) {
	o := sync.OnceValue(func() *ownerAtWork { return newOwnerAtWork(t) })
	disktest.EachCall(t, disktest.Case{Faults: []syscall.Errno{syscall.EIO, syscall.ENOSPC}, Calls: 20,
		Prepare: func(dir string) {
			if err := os.CopyFS(dir, os.DirFS(o().prepared)); err != nil {
				t.Fatal(err)
			}
		},
		Work:  func(dir string, say func(string)) { work(t, dir, say) },
		Check: func(dir string, said []string, when string) { o().check(dir, said, when) }})
}
