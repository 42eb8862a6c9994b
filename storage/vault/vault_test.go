package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"gotong/grid"
	"gotong/storage"
)

func randomBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// backup stores one object as a snapshot.
func (f *fixture) backup(content []byte) (Ref, Result) {
	f.t.Helper()
	ref, result, err := f.tryBackup(content)
	if err != nil {
		f.t.Fatal(err)
	}
	return ref, result
}

func (f *fixture) tryBackup(contents ...[]byte) (ref Ref, result Result, err error) {
	s, err := f.v.Begin(context.Background())
	if err != nil {
		return Ref{}, Result{}, err
	}
	defer s.Abort()
	w, err := s.NewWriter()
	if err != nil {
		return Ref{}, Result{}, err
	}
	for _, content := range contents {
		object, err := w.Put(bytes.NewReader(content), int64(len(content)))
		if err != nil {
			return Ref{}, Result{}, err
		}
		ref = object.Ref
	}
	result, err = s.Commit(Snapshot{Created: time.Unix(1000, 0), Root: ref, Host: "host", Paths: []string{"/a\xff"}})
	return ref, result, err
}

func (f *fixture) read(ref Ref) []byte {
	f.t.Helper()
	b, err := f.tryRead(ref)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

func (f *fixture) tryRead(ref Ref) ([]byte, error) {
	r, err := f.v.NewReader(context.Background())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var out bytes.Buffer
	err = r.WriteObject(&out, ref)
	return out.Bytes(), err
}

func TestObjectsComeBack(t *testing.T) {
	f := newFixture(t)
	text := bytes.Repeat([]byte("all work and no play makes a dull test. "), 100_000)
	for i, content := range [][]byte{nil, {1}, text[:1000], text, randomBytes(1, 256<<10), randomBytes(2, 256<<10+1), randomBytes(3, 40<<20)} {
		ref, result := f.backup(content)
		if ref.Size != uint64(len(content)) {
			t.Errorf("%d: ref says %d bytes of %d", i, ref.Size, len(content))
		}
		if got := f.read(ref); !bytes.Equal(got, content) {
			t.Errorf("%d: %d bytes came back different", i, len(content))
		}
		if !result.Committed || !result.Complete || result.SurvivesSites != 2 || result.HeadHolders != 2 {
			t.Errorf("%d: %+v", i, result)
		}
	}
	if all, err := f.v.Snapshots(context.Background()); err != nil || len(all) != 7 || all[0].Paths[0] != "/a\xff" || all[0].Host != "host" {
		t.Errorf("snapshots %v %v", all, err)
	}
}

func TestSecondBackupSendsNextToNothing(t *testing.T) {
	f := newFixture(t)
	content := randomBytes(1, 30<<20)
	f.backup(content)
	before := f.segments.bytes()
	_, result := f.backup(content)
	if result.Stats.NewBytes != 0 || f.segments.bytes()-before > 8<<10 {
		t.Errorf("%d new bytes, %d sent", result.Stats.NewBytes, f.segments.bytes()-before)
	}
	f.reopen()
	changed := append(append(bytes.Clone(content[:15<<20]), "inserted"...), content[15<<20:]...)
	ref, result := f.backup(changed)
	if result.Stats.NewBytes > 8<<20 {
		t.Errorf("an insertion stored %d bytes again", result.Stats.NewBytes)
	}
	if !bytes.Equal(f.read(ref), changed) {
		t.Error("changed content came back different")
	}
}

func TestDuplicatesInOneSession(t *testing.T) {
	f := newFixture(t)
	content := randomBytes(1, 3<<20)
	_, result, err := f.tryBackup(content, content, content)
	if err != nil {
		t.Fatal(err)
	}
	if result.Stats.NewBytes > uint64(len(content)+1000) {
		t.Errorf("%d new bytes", result.Stats.NewBytes)
	}
}

func TestFindByPrefix(t *testing.T) {
	f := newFixture(t)
	ctx := context.Background()
	if _, err := f.v.Find(ctx, Latest); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("latest of none: %v", err)
	}
	f.backup([]byte("a"))
	_, second := f.backup([]byte("b"))
	for _, name := range []string{Latest, second.Snapshot.ID.String(), second.Snapshot.ID.Short()} {
		if s, err := f.v.Find(ctx, name); err != nil || s.ID != second.Snapshot.ID {
			t.Errorf("%s: %v %v", name, s.ID, err)
		}
	}
	if _, err := f.v.Find(ctx, "zz"); !errors.Is(err, ErrNoSnapshot) {
		t.Error(err)
	}
	for i := range 40 {
		f.backup([]byte{byte(i)})
	}
	ambiguous := 0
	for _, prefix := range "0123456789abcdef" {
		if _, err := f.v.Find(ctx, string(prefix)); errors.Is(err, ErrAmbiguous) {
			ambiguous++
		}
	}
	if ambiguous == 0 {
		t.Error("42 snapshots and no prefix of one digit is ambiguous")
	}
}

func TestOneSessionAtATime(t *testing.T) {
	f := newFixture(t)
	s, err := f.v.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.v.Begin(context.Background()); !errors.Is(err, ErrBusy) {
		t.Errorf("second session: %v", err)
	}
	if _, err := Open(f.dir, f.config); !errors.Is(err, ErrBusy) {
		t.Errorf("second process: %v", err)
	}
	s.Abort()
	s.Abort()
	f.backup([]byte("x"))
}

func TestIndexIsMadeAnew(t *testing.T) {
	damages := map[string]func(path string) error{
		"removed": os.Remove,
		"garbage": func(path string) error { return os.WriteFile(path, randomBytes(9, 70_000), 0o600) },
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"cut":     func(path string) error { return os.Truncate(path, 20<<10) },
		"zeroed": func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = file.WriteAt(make([]byte, info.Size()-8192), 8192)
			return errors.Join(err, file.Close())
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			content := randomBytes(1, 20<<20)
			ref, _ := f.backup(content)
			f.backup([]byte("another"))
			f.close()
			if err := damage(filepath.Join(f.dir, indexName)); err != nil {
				t.Fatal(err)
			}
			f.open()
			if got := f.read(ref); !bytes.Equal(got, content) {
				t.Error("content came back different")
			}
			if _, result := f.backup(content); result.Stats.NewBytes != 0 {
				t.Errorf("%d bytes stored again", result.Stats.NewBytes)
			}
			if all, err := f.v.Snapshots(context.Background()); err != nil || len(all) != 3 {
				t.Errorf("%d snapshots, %v", len(all), err)
			}
		})
	}
}

func TestCatalogueStaysInFewParts(t *testing.T) {
	f := newFixture(t)
	for i := range 100 {
		f.backup([]byte{byte(i), 1})
	}
	parts, err := f.v.index.parts()
	if err != nil || len(parts) > 10 {
		t.Fatalf("%d parts, %v", len(parts), err)
	}
	total := 0
	for _, row := range parts {
		p, err := parsePart(row.plain)
		if err != nil {
			t.Fatal(err)
		}
		total += len(p.Snapshots)
	}
	if total != 100 {
		t.Errorf("%d snapshots in %d parts", total, len(parts))
	}
	f.close()
	if err := os.Remove(filepath.Join(f.dir, indexName)); err != nil {
		t.Fatal(err)
	}
	f.open()
	if all, err := f.v.Snapshots(context.Background()); err != nil || len(all) != 100 {
		t.Errorf("%d snapshots, %v", len(all), err)
	}
}

func TestNewerHeadStopsTheBackup(t *testing.T) {
	f := newFixture(t)
	f.backup([]byte("one"))
	f.close()
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	f.open()
	f.backup([]byte("two"))
	f.close()
	f.dir = old
	f.open()
	if _, _, err := f.tryBackup([]byte("three")); !errors.Is(err, ErrNewerHead) {
		t.Errorf("backup from a restored disk: %v", err)
	}
}

func TestForkStopsTheBackup(t *testing.T) {
	f := newFixture(t)
	f.segments.fault = func(op string) error {
		if op == "publish" {
			return storage.ErrHeadFork
		}
		return nil
	}
	if _, _, err := f.tryBackup([]byte("x")); !errors.Is(err, ErrNewerHead) || !errors.Is(err, storage.ErrHeadFork) {
		t.Errorf("backup that contradicts what holders have: %v", err)
	}
}

func TestLostSegmentsAreSaid(t *testing.T) {
	f := newFixture(t)
	ref, _ := f.backup(randomBytes(1, 1<<20))
	f.segments.segments = map[storage.SegmentID][]byte{}
	if _, err := f.tryRead(ref); !errors.Is(err, storage.ErrTooFewShards) {
		t.Errorf("read of lost segments: %v", err)
	}
}

// damageBlobs alters the entries of all blobs in the open index.
func (f *fixture) damageBlobs(alter func(b []byte)) {
	f.t.Helper()
	err := f.v.index.update(func(tx *bbolt.Tx) error {
		blobs := tx.Bucket(bucketBlobs)
		return blobs.ForEach(func(k, b []byte) error {
			b = bytes.Clone(b)
			alter(b)
			return blobs.Put(bytes.Clone(k), b)
		})
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

func TestFlippedBitsInTheIndex(t *testing.T) {
	f := newFixture(t)
	content := randomBytes(1, 20<<20)
	ref, _ := f.backup(content)
	flip := func(b []byte) { b[5] ^= 4 }
	f.damageBlobs(flip)
	if got := f.read(ref); !bytes.Equal(got, content) {
		t.Error("content came back different")
	}
	f.damageBlobs(flip)
	if _, _, err := f.tryBackup(content); !errors.Is(err, errIndexBroken) {
		t.Errorf("backup with a broken index: %v", err)
	}
	if _, result := f.backup(content); result.Stats.NewBytes != 0 {
		t.Errorf("%d bytes stored again", result.Stats.NewBytes)
	}
}

// TestMissingTOCIsReadLater makes the index anew while a segment is away.
func TestMissingTOCIsReadLater(t *testing.T) {
	f := newFixture(t)
	content := randomBytes(1, 20<<20)
	ref, _ := f.backup(content)
	away := map[storage.SegmentID][]byte{}
	for id, data := range f.segments.segments {
		if len(data) > 8<<20 {
			away[id] = data
			delete(f.segments.segments, id)
			break
		}
	}
	f.close()
	if err := os.Remove(filepath.Join(f.dir, indexName)); err != nil {
		t.Fatal(err)
	}
	f.open()
	if _, err := f.tryRead(ref); !errors.Is(err, ErrMissing) {
		t.Errorf("read while a segment is away: %v", err)
	}
	maps.Copy(f.segments.segments, away)
	if got := f.read(ref); !bytes.Equal(got, content) {
		t.Error("content came back different")
	}
}

// TestMemoryIsBounded stores far more than the bound.
func TestMemoryIsBounded(t *testing.T) {
	const bound = 150 << 20
	f := newFixture(t)
	f.segments.discard = true
	s, err := f.v.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Abort()
	w, err := s.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	var peak uint64
	chunks := 0
	r := io.LimitReader(readerFunc(func(p []byte) (int, error) {
		if chunks++; chunks%16 == 0 {
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
		return rand.NewChaCha8([32]byte{byte(chunks), byte(chunks >> 8)}).Read(p)
	}), 320<<20)
	if _, err := w.Put(r, 320<<20); err != nil {
		t.Fatal(err)
	}
	if peak == 0 || peak > before.HeapAlloc+bound {
		t.Errorf("%d MiB in use", (peak-before.HeapAlloc)>>20)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// slowHeads is asked for heads and takes its time to notice that nobody waits.
type slowHeads struct {
	Segments
	asked, over atomic.Bool
}

func (s *slowHeads) FindHeads(ctx context.Context, _ grid.OwnerID) ([]storage.VaultHeads, error) {
	s.asked.Store(true)
	<-ctx.Done()
	time.Sleep(time.Second)
	s.over.Store(true)
	return nil, ctx.Err()
}

// TestASessionLeavesNothingRunning: what it asked of peers has ended when it has,
// because they may not be asked once the vault is closed.
func TestASessionLeavesNothingRunning(t *testing.T) {
	for _, end := range []struct {
		how string
		end func(s *Session)
	}{
		{"aborted", (*Session).Abort},
		{"failed", func(s *Session) {
			s.fail(errFault)
			if _, err := s.Commit(Snapshot{}); !errors.Is(err, errFault) {
				t.Errorf("commit after a fault: %v", err)
			}
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			heads := &slowHeads{Segments: f.v.segments}
			f.v.segments = heads
			s, err := f.v.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			end.end(s)
			if !heads.asked.Load() || !heads.over.Load() {
				t.Errorf("%s: asked %t, over %t", end.how, heads.asked.Load(), heads.over.Load())
			}
		})
	}
}
