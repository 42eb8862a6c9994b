package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
)

func (f *fixture) random(limit int) *Random {
	f.t.Helper()
	r, err := f.v.NewRandom(context.Background(), limit)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(r.Close)
	return r
}

// TestRandomReads: any part of an object is right, whoever else reads, however
// little is kept.
func TestRandomReads(t *testing.T) {
	f := newFixture(t)
	content := randomBytes(3, 30<<20)
	ref, _ := f.backup(content)
	r := f.random(5 << 20)
	var wg sync.WaitGroup
	for i := range 4 {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		wg.Go(func() {
			for range 100 {
				off, n := random.IntN(len(content)+1000), random.IntN(300_000)
				p := make([]byte, n)
				got, err := r.ReadAt(t.Context(), ref, p, int64(off))
				want := content[min(off, len(content)):min(off+n, len(content))]
				if err != nil && !errors.Is(err, io.EOF) || (err != nil) != (len(want) < n) || !bytes.Equal(p[:got], want) {
					t.Errorf("%d bytes at %d: %d, %v", n, off, got, err)
				}
			}
		})
	}
	wg.Wait()
	if r.bytes > 5<<20+4<<20 {
		t.Errorf("%d bytes are kept", r.bytes)
	}
	if _, err := r.ReadAt(t.Context(), ref, make([]byte, 1), -1); err == nil {
		t.Error("read before the object")
	}
}

// TestSmallReadIsCheap: a few bytes cost one blob and the list that names it,
// not a segment.
func TestSmallReadIsCheap(t *testing.T) {
	f := newFixture(t)
	content := randomBytes(4, 40<<20)
	ref, _ := f.backup(content)
	r := f.random(0)
	p := make([]byte, 4096)
	if _, err := r.ReadAt(t.Context(), ref, p, 20<<20); err != nil || !bytes.Equal(p, content[20<<20:20<<20+4096]) {
		t.Fatal(err)
	}
	if n := r.Fetched(); n > maxBlobBytes+64<<10 || len(f.segments.gets) > 0 {
		t.Errorf("%d bytes were fetched and %d segments", n, len(f.segments.gets))
	}
	before := r.Fetched()
	if _, err := r.ReadAt(t.Context(), ref, p, 20<<20+1); err != nil || r.Fetched() != before {
		t.Errorf("fetched again: %v", err)
	}
}

// TestScatteredReadAt: several objects read side by side, each in a segment of
// its own, cost each segment a bounded number of times, on disk and when the disk
// takes no more.
func TestScatteredReadAt(t *testing.T) {
	const step, size = 512 << 10, 8 << 20
	read := func(t *testing.T, most int64) (f *fixture, r *Random) {
		f = newFixture(t)
		refs, contents, reader := f.scattered(3*leasedSegments, size)
		reader.Close()
		r = f.random(3 * leasedSegments * maxBlobBytes)
		r.r.scratch.most = most
		p := make([]byte, step)
		for at := 0; at < size; at += step {
			for i, ref := range refs {
				if _, err := r.ReadAt(t.Context(), ref, p, int64(at)); err != nil || !bytes.Equal(p, contents[i][at:at+step]) {
					t.Fatal(i, at, err)
				}
			}
		}
		return f, r
	}
	t.Run("disk", func(t *testing.T) {
		if f, _ := read(t, randomScratchMost); f.mostGets() == 0 || f.mostGets() > 2 {
			t.Errorf("a segment was fetched %d times", f.mostGets())
		}
	})
	t.Run("full", func(t *testing.T) {
		f, r := read(t, 1)
		if f.mostGets() > 6 || r.Fetched() > 6*3*leasedSegments*size { // what was on its way when the disk was full too
			t.Errorf("a segment was fetched %d times, and %d bytes in all", f.mostGets(), r.Fetched())
		}
	})
}

// TestLongReadTakesSegments: what is read in order costs each segment once.
func TestLongReadTakesSegments(t *testing.T) {
	f := newFixture(t)
	content := randomBytes(5, 40<<20)
	ref, _ := f.backup(content)
	r := f.random(0)
	var out bytes.Buffer
	if err := r.WriteObject(t.Context(), &out, ref); err != nil || !bytes.Equal(out.Bytes(), content) {
		t.Fatal(err)
	}
	if len(f.segments.gets) == 0 {
		t.Error("no segment was fetched whole")
	}
	for id, n := range f.segments.gets {
		if n > 1 {
			t.Errorf("segment %s was fetched %d times", id.Short(), n)
		}
	}
}

// TestReadAhead: who reads on and on finds the next bytes there already, and no
// segment is fetched twice for that; who jumps about has nothing fetched ahead.
func TestReadAhead(t *testing.T) {
	f := newFixture(t)
	content := randomBytes(7, 80<<20)
	ref, _ := f.backup(content)
	read := func(r *Random, off int) {
		p := make([]byte, 128<<10)
		if _, err := r.ReadAt(t.Context(), ref, p, int64(off)); err != nil || !bytes.Equal(p, content[off:off+len(p)]) {
			t.Fatal(off, err)
		}
	}
	there := func(r *Random, off uint64) bool {
		leaf, _, err := r.leafAt(t.Context(), ref, off)
		if err != nil {
			t.Fatal(err)
		}
		return r.kept(leaf.Hash) != nil
	}
	r := f.random(0)
	for off := 0; off < 3<<20; off += 128 << 10 {
		read(r, off)
	}
	r.r.wg.Wait()
	if !there(r, 12<<20) || there(r, 60<<20) {
		t.Error("not the next bytes were fetched ahead")
	}
	for off := 3 << 20; off < len(content); off += 128 << 10 {
		read(r, off)
	}
	for id, n := range f.segments.gets {
		if n > 1 {
			t.Errorf("segment %s was fetched %d times", id.Short(), n)
		}
	}
	jumps := f.random(0)
	for _, off := range []int{1 << 20, 30 << 20, 60 << 20, 10 << 20, 50 << 20} {
		read(jumps, off)
	}
	jumps.r.wg.Wait()
	if n := jumps.Fetched(); n > 5*maxBlobBytes+64<<10 {
		t.Errorf("%d bytes were fetched for five small reads", n)
	}
}

// TestRandomFallsBack: what a range cannot give, or gives wrong, comes from the
// whole segment; what nobody gives is an error that passes.
func TestRandomFallsBack(t *testing.T) {
	f := newFixture(t)
	content := randomBytes(6, 3<<20)
	ref, _ := f.backup(content)
	away := map[string]bool{"range": true}
	f.segments.fault = func(op string) error {
		if away[op] {
			return errFault
		}
		return nil
	}
	p := make([]byte, 1000)
	if _, err := f.random(0).ReadAt(t.Context(), ref, p, 1e6); err != nil || !bytes.Equal(p, content[1e6:1e6+1000]) {
		t.Error(err)
	}
	r := f.random(0)
	away["get"] = true
	if _, err := r.ReadAt(t.Context(), ref, p, 1e6); !errors.Is(err, errFault) {
		t.Error(err)
	}
	clear(away)
	if _, err := r.ReadAt(t.Context(), ref, p, 1e6); err != nil || !bytes.Equal(p, content[1e6:1e6+1000]) {
		t.Error(err)
	}
}
