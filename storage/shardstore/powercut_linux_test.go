package shardstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"gotong/storage"
	"gotong/storage/shardstore"
	"gotong/storage/storagetest"
)

// goingDown is the ioctl by which ext4 and XFS stop as in a power cut: nothing
// more is written, not even the log, and what was not on the disk is gone.
const (
	goingDown  = 0x8004587d
	noLogFlush = 2
)

// loopFS is a file system of its own, on an image in a directory of the test.
type loopFS struct {
	t          *testing.T
	image, dir string
}

// newLoopFS makes one, or skips the test. With REQUIRE_LOOP=1 it fails instead.
func newLoopFS(t *testing.T, kind string, size int64) *loopFS {
	refuse := t.Skipf
	if os.Getenv("REQUIRE_LOOP") == "1" {
		refuse = t.Fatalf
	}
	if os.Getuid() != 0 {
		refuse("only root mounts file systems")
	}
	shared := t.TempDir()
	f := &loopFS{t: t, image: filepath.Join(t.TempDir(), "image"), dir: filepath.Join(shared, "fs")}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// Else a process that meanwhile starts with mounts of its own would keep
	// the file system mounted, and a restart would find the stopped one.
	if out, err := exec.Command("mount", "--bind", "--make-shared", shared, shared).CombinedOutput(); err != nil {
		refuse("mount: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", shared).Run() })
	if err := os.WriteFile(f.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(f.image, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs."+kind, "-q", f.image).CombinedOutput(); err != nil {
		refuse("mkfs.%s: %v: %s", kind, err, out)
	}
	if out, err := f.mount(); err != nil {
		refuse("mount: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", "-l", f.dir).Run() })
	return f
}

func (f *loopFS) mount() ([]byte, error) {
	return exec.Command("mount", "-o", "loop", f.image, f.dir).CombinedOutput()
}

// cutPower stops the file system at once.
func (f *loopFS) cutPower() {
	dir, err := os.Open(f.dir)
	if err != nil {
		f.t.Error(err)
		return
	}
	defer dir.Close()
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), goingDown, noLogFlush); err != nil {
		f.t.Error("cut the power:", err)
	}
}

// restart mounts it again after a power cut.
func (f *loopFS) restart() {
	f.t.Helper()
	if out, err := exec.Command("umount", f.dir).CombinedOutput(); err != nil {
		f.t.Fatalf("umount: %v: %s", err, out)
	}
	if out, err := f.mount(); err != nil {
		f.t.Fatalf("mount after the power cut: %v: %s", err, out)
	}
}

// powerCut is what was acknowledged before the power was cut.
type powerCut struct {
	t       *testing.T
	mu      sync.Mutex
	shards  map[storage.ShardID]bool
	tried   map[storage.SegmentID]bool // to be deleted
	deleted []storage.SegmentID
	number  uint64
	chain   []storage.SignedHead // of which the first heads are acknowledged
	heads   int
	left    int           // acknowledgements until the power is cut
	due     chan struct{} // closed then
}

// acked notes an acknowledgement and counts it. False: the power was cut before.
// That matters because this power cut is an ioctl: what waits for the log of XFS
// at that moment may be told that all is well, but after a real one nobody would
// hear it.
func (p *powerCut) acked(note func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		return false
	}
	note()
	if p.left--; p.left == 0 {
		close(p.due)
	}
	return true
}

// work stores and deletes until the store fails.
func (p *powerCut) work(s *shardstore.Store, name string) {
	ctx := p.t.Context()
	for i := 0; ; i++ {
		segment := device.Segment(p.t, vault, twoOf3, 20_000, fmt.Sprint(name, i))
		for index := range 2 {
			if err := storagetest.Put(ctx, s, segment, index, nil); err != nil {
				return
			}
			if !p.acked(func() { p.shards[segment.ID(index)] = true }) {
				return
			}
		}
		if i%2 != 0 {
			continue
		}
		p.mu.Lock()
		p.number++
		deletion := device.Deletion(p.t, vault, p.number, segment.Header.ID)
		p.tried[segment.Header.ID] = true
		p.mu.Unlock()
		if s.PutDeletions(ctx, storagetest.RawDeletions(deletion)) != nil {
			return
		}
		if !p.acked(func() { p.deleted = append(p.deleted, segment.Header.ID) }) {
			return
		}
	}
}

// publish puts one head after another until the store fails.
func (p *powerCut) publish(s *shardstore.Store) {
	for p.heads < len(p.chain) && s.PutHeads(p.t.Context(), storagetest.Raw(p.chain[p.heads])) == nil {
		if !p.acked(func() { p.heads++ }) {
			return
		}
	}
}

// check finds all that was acknowledged.
func (p *powerCut) check(s *shardstore.Store, when string) {
	t := p.t
	t.Helper()
	for id := range p.shards {
		if err := s.Verify(t.Context(), id); err != nil {
			t.Errorf("%s: acknowledged shard: %v", when, err)
		}
	}
	for _, id := range p.deleted {
		answers, err := s.Have(t.Context(), []storage.SegmentID{id})
		if err != nil || !s.Deleted(device.Owner, vault, id) || len(answers[0].Shards) != 2 || answers[0].Shards[0].State != storage.ShardTrash {
			t.Errorf("%s: acknowledged deletion: %v, %v", when, answers, err)
		}
	}
	for held, err := range s.Segments(t.Context()) {
		if err != nil || slices.Contains(p.deleted, held.ID) {
			t.Errorf("%s: deleted segment is stored: %v", when, err)
		}
	}
	stats := s.Stats()
	if len(p.tried) < stats.TrashShards/2 {
		t.Errorf("%s: %d shards in the trash for %d deletions", when, stats.TrashShards, len(p.tried))
	}
	newest := 0
	if vaults, err := s.Heads(t.Context(), device.Owner); err != nil || len(vaults) > 0 {
		links := newestOf(t, s)
		newest = int(links[len(links)-1].Seq)
	}
	if newest < p.heads {
		t.Errorf("%s: newest head is %d of %d", when, newest, p.heads)
	}
	p.heads = newest // one more may have arrived
	for _, problem := range s.Problems() {
		if problem.What != "head file is damaged" && problem.What != "file of deletions is damaged" { // a torn tail
			t.Errorf("%s: %+v", when, problem)
		}
	}
}

// TestPowerCut stops real file systems in the midst of work, again and again:
// what was acknowledged is there after each restart, and right.
func TestPowerCut(t *testing.T) {
	for _, c := range []struct {
		kind string
		size int64
	}{{"ext4", 64 << 20}, {"xfs", 320 << 20}} {
		t.Run(c.kind, func(t *testing.T) {
			disk := newLoopFS(t, c.kind, c.size)
			const rounds = 4
			p := &powerCut{t: t, shards: map[storage.ShardID]bool{}, tried: map[storage.SegmentID]bool{}, chain: device.Heads(t, vault, 400)}
			for round := range rounds {
				when := fmt.Sprintf("%s, power cut %d", c.kind, round+1)
				s, err := shardstore.Open(filepath.Join(disk.dir, "store"), shardstore.Config{KeepFreeBytes: -1})
				if err != nil {
					t.Fatalf("%s: %v", when, err)
				}
				p.left, p.due = 30+rand.IntN(60), make(chan struct{})
				var workers sync.WaitGroup
				for worker := range 3 {
					workers.Go(func() { p.work(s, fmt.Sprint(round, worker, " ")) })
				}
				workers.Go(func() { p.publish(s) })
				<-p.due
				disk.cutPower()
				workers.Wait()
				if err := s.Close(); err != nil && !errors.Is(err, unix.EIO) {
					t.Log(err)
				}
				disk.restart()
				s = open(t, filepath.Join(disk.dir, "store"), shardstore.Config{KeepFreeBytes: -1})
				p.check(s, when)
				_ = s.Close()
			}
			if len(p.deleted) == 0 || p.heads == 0 {
				t.Errorf("%d deletions and %d heads acknowledged", len(p.deleted), p.heads)
			}
		})
	}
}
