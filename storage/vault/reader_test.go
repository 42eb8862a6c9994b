package vault

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"gotong/storage"
)

// scattered makes so many backups, of one small object each, and a Reader.
func (f *fixture) scattered(backups, size int) (refs []Ref, contents [][]byte, r *Reader) {
	f.t.Helper()
	for i := range backups {
		contents = append(contents, randomBytes(byte(100+i), size))
		ref, _ := f.backup(contents[i])
		refs = append(refs, ref)
	}
	r, err := f.v.NewReader(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(r.Close)
	clear(f.segments.gets) // those of the backups
	f.segments.ranges = 0
	return refs, contents, r
}

func (f *fixture) mustWrite(r *Reader, ref Ref, want []byte) {
	f.t.Helper()
	var out bytes.Buffer
	if err := r.WriteObject(&out, ref); err != nil || !bytes.Equal(out.Bytes(), want) {
		f.t.Fatalf("%d of %d bytes came back: %v", out.Len(), len(want), err)
	}
}

func (f *fixture) mostGets() (most int) {
	for _, n := range f.segments.gets {
		most = max(most, n)
	}
	return most
}

// scratches returns the files that readers left in the vault's directory.
func (f *fixture) scratches() []string {
	names, err := filepath.Glob(filepath.Join(f.v.dir, scratchName+"-*"))
	if err != nil {
		f.t.Fatal(err)
	}
	return names
}

// TestScatteredReadsFetchSegmentsTwiceAtMost: what is read in an order that has
// nothing to do with that of the backups does not fetch the same again and
// again, though memory has room for a few segments only.
func TestScatteredReadsFetchSegmentsTwiceAtMost(t *testing.T) {
	f := newFixture(t)
	refs, contents, r := f.scattered(3*leasedSegments, 3<<20)
	for range 6 {
		for i, ref := range refs {
			f.mustWrite(r, ref, contents[i])
		}
	}
	if len(f.segments.gets) < len(refs) || f.mostGets() > 2 {
		t.Errorf("%d segments were fetched, one of them %d times", len(f.segments.gets), f.mostGets())
	}
	r.Close()
	if left := f.scratches(); len(left) > 0 {
		t.Errorf("%v were left", left)
	}
}

// TestScatteredReadsWithoutDisk: what cannot be kept is fetched again.
func TestScatteredReadsWithoutDisk(t *testing.T) {
	f := newFixture(t)
	refs, contents, r := f.scattered(3*leasedSegments, 3<<20)
	r.scratch.dir = filepath.Join(t.TempDir(), "missing")
	for range 3 {
		for i, ref := range refs {
			f.mustWrite(r, ref, contents[i])
		}
	}
	if f.mostGets() != 3 {
		t.Errorf("a segment was fetched %d times", f.mostGets())
	}
}

// TestScatteredReadsFindWhatTheIndexHasWrong: a segment on disk says where its
// blobs are, like one in memory; one that the disk has spoilt is an error.
func TestScatteredReadsFindWhatTheIndexHasWrong(t *testing.T) {
	f := newFixture(t)
	refs, contents, r := f.scattered(3*leasedSegments, 3<<20)
	for range 2 {
		for i, ref := range refs {
			f.mustWrite(r, ref, contents[i])
		}
	}
	lease, err := r.Lease(leafOf(t, r, refs[0]).Hash)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	if lease.segment == nil || lease.segment.kept.bytes == 0 {
		t.Fatal("the segment is not on disk")
	}
	want, _, err := lease.Read(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	lease.at.offset += 7
	if got, _, err := lease.Read(nil, nil); err != nil || !bytes.Equal(got, want) {
		t.Errorf("by the pack itself: %d bytes, %v", len(got), err)
	}
	if err := r.scratch.file.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if got, _, err := lease.Read(nil, nil); err == nil {
		t.Errorf("%d bytes of a file that is empty", len(got))
	}
}

func leafOf(t *testing.T, r *Reader, ref Ref) (first Ref) {
	t.Helper()
	if err := r.Leaves(ref, func(leaf Ref) error {
		if first.Size == 0 {
			first = leaf
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return first
}

// TestSmallObjectsAreFetchedAlone: little of a segment costs little, and much of
// it the whole, once.
func TestSmallObjectsAreFetchedAlone(t *testing.T) {
	f := newFixture(t)
	var contents [][]byte
	for i := range 3 * aloneBlobs {
		contents = append(contents, randomBytes(byte(i), 10_000+i))
	}
	if _, _, err := f.tryBackup(contents...); err != nil {
		t.Fatal(err)
	}
	var refs []Ref
	for _, content := range contents {
		ref, _ := f.backup(content) // is there already
		refs = append(refs, ref)
	}
	r, err := f.v.NewReader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	clear(f.segments.gets)
	for i, ref := range refs {
		f.mustWrite(r, ref, contents[i])
		if i < aloneBlobs && (len(f.segments.gets) > 0 || r.fetched.Load() > uint64(i+1)*11_000) {
			t.Fatalf("%d segments and %d bytes were fetched for %d small objects", len(f.segments.gets), r.fetched.Load(), i+1)
		}
	}
	if f.segments.ranges != aloneBlobs || len(f.segments.gets) != 1 || f.mostGets() != 1 {
		t.Errorf("%d ranges and %d segments", f.segments.ranges, len(f.segments.gets))
	}
}

// TestRangesThatFail: when the holder of a blob does not answer, its segment is
// fetched, and no other holder is tried for a single blob.
func TestRangesThatFail(t *testing.T) {
	f := newFixture(t)
	refs, contents, r := f.scattered(3, 1000)
	asked := 0
	f.segments.fault = func(op string) error {
		if op != "range" {
			return nil
		}
		asked++
		return os.ErrDeadlineExceeded
	}
	for i, ref := range refs {
		f.mustWrite(r, ref, contents[i])
	}
	if asked != 1 || f.mostGets() != 1 {
		t.Errorf("%d ranges were asked for, a segment was fetched %d times", asked, f.mostGets())
	}
}

// TestScratchOfAKill: a file that a kill left goes away when the vault opens.
func TestScratchOfAKill(t *testing.T) {
	f := newFixture(t)
	if err := os.WriteFile(filepath.Join(f.v.dir, scratchName+"-123"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	if left := f.scratches(); len(left) > 0 {
		t.Errorf("%v were left", left)
	}
}

// gatedSegments gives nothing back before the gate is open.
type gatedSegments struct {
	Segments
	gate chan struct{}
}

func (g gatedSegments) Get(ctx context.Context, id storage.SegmentID, holders []storage.Holder, buffer []byte) ([]byte, error) {
	<-g.gate
	return g.Segments.Get(ctx, id, holders, buffer)
}

func (g gatedSegments) Range(ctx context.Context, id storage.SegmentID, holders []storage.Holder, off, n int64) ([]byte, error) {
	<-g.gate
	return g.Segments.Range(ctx, id, holders, off, n)
}

// gated returns the first leaf of each of so many scattered objects, and a Reader
// that gets nothing before the gate is closed.
func (f *fixture) gated(t *testing.T, objects int) (leaves []Ref, r *Reader, gate chan struct{}) {
	refs, _, first := f.scattered(objects, 300_000)
	for _, ref := range refs {
		leaves = append(leaves, leafOf(t, first, ref))
	}
	first.Close()
	gate = make(chan struct{})
	f.v.segments = gatedSegments{f.v.segments, gate}
	r, err := f.v.NewReader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	r.noRanges.Store(true)
	return leaves, r, gate
}

// TestASegmentOnItsWayIsNotForgotten: nobody waits any more for what is being
// fetched, and its memory is still in use.
func TestASegmentOnItsWayIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		leaves, r, gate := f.gated(t, leasedSegments+1)
		for _, leaf := range leaves[:leasedSegments] {
			lease, err := r.Lease(leaf.Hash)
			if err != nil {
				t.Fatal(err)
			}
			lease.Release()
		}
		var got []byte
		var wg sync.WaitGroup
		wg.Go(func() {
			lease, err := r.Lease(leaves[leasedSegments].Hash)
			if err != nil {
				t.Error(err)
				return
			}
			defer lease.Release()
			if got, _, err = lease.Read(nil, nil); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		r.mu.Lock()
		cached := len(r.cached)
		for _, segment := range r.cached {
			if segment.lastUse > leasedSegments {
				t.Error("a segment was forgotten while it was being fetched")
			}
		}
		r.mu.Unlock()
		if cached != leasedSegments {
			t.Errorf("%d segments are held, want %d", cached, leasedSegments)
		}
		close(gate)
		wg.Wait()
		if uint64(len(got)) != leaves[leasedSegments].Size {
			t.Errorf("%d bytes came back", len(got))
		}
	})
}

// TestTwoReadersOfABrokenIndexWaitForTheNewOne: what the second one misses is not
// lost while the index is being made anew for the first.
func TestTwoReadersOfABrokenIndexWaitForTheNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		leaves, r, gate := f.gated(t, 2)
		f.damageBlobs(func(b []byte) { b[5] ^= 4 })
		var wg sync.WaitGroup
		for _, leaf := range leaves {
			wg.Go(func() {
				if _, err := r.locate(leaf.Hash); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		close(gate)
		wg.Wait()
	})
}
