package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotong/storage/vault"
)

func TestCatRanges(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	write(t, src+"/big", randomBytes(3, 9<<20))
	write(t, src+"/small", []byte("hello"))
	write(t, src+"/empty", nil)
	f, err := os.Create(src + "/holes")
	must(t, err)
	for i, off := range []int64{0, 3 << 20, 7 << 20} {
		_, err := f.WriteAt(randomBytes(byte(i), 100_000), off)
		must(t, err)
	}
	must(t, errors.Join(f.Truncate(10<<20), f.Close()))
	backUp(t, v, src)
	cat := func(name string, offset, length int64) []byte {
		var out bytes.Buffer
		if err := Cat(context.Background(), v, vault.Latest, src+"/"+name, &out, offset, length); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return out.Bytes()
	}
	for _, name := range []string{"big", "small", "empty", "holes"} {
		want, err := os.ReadFile(src + "/" + name)
		must(t, err)
		if !bytes.Equal(cat(name, 0, -1), want) {
			t.Errorf("%s is another one", name)
		}
		random := rand.New(rand.NewPCG(1, 1))
		for range 60 {
			off := random.Int64N(int64(len(want)) + 10)
			length := random.Int64N(1 << (4 + random.IntN(20)))
			piece := want[min(off, int64(len(want))):min(off+length, int64(len(want)))]
			if got := cat(name, off, length); !bytes.Equal(got, piece) {
				t.Errorf("%s [%d, +%d): got %d bytes, want %d", name, off, length, len(got), len(piece))
			}
		}
	}
	if err := Cat(context.Background(), v, vault.Latest, src, &bytes.Buffer{}, 0, -1); !errors.Is(err, ErrNotFile) {
		t.Errorf("a directory: %v", err)
	}
	if err := Cat(context.Background(), v, vault.Latest, src+"/no", &bytes.Buffer{}, 0, -1); !errors.Is(err, ErrNoPath) {
		t.Errorf("nothing: %v", err)
	}
	if err := Cat(context.Background(), v, vault.Latest, src+"/big", failingWriter{}, 0, -1); !errors.Is(err, errWriter) {
		t.Errorf("a full pipe: %v", err)
	}
}

var errWriter = errors.New("nobody reads")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errWriter }

func TestFindAndDiff(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	for _, name := range []string{"same/deep/file", "gone/a.txt", "gone/b", "changed.txt", "mode.txt", "kind"} {
		write(t, src+"/"+name, []byte(name))
	}
	must(t, os.Symlink("a", src+"/link"))
	first := backUp(t, v, src)
	must(t, os.RemoveAll(src+"/gone"))
	must(t, os.Remove(src+"/kind"))
	must(t, os.Remove(src+"/link"))
	must(t, os.Symlink("b", src+"/link"))
	write(t, src+"/kind/inside", []byte("x"))
	write(t, src+"/changed.txt", []byte("other"))
	write(t, src+"/new/one.txt", []byte("new"))
	must(t, os.Chmod(src+"/mode.txt", 0o600))
	must(t, os.Chtimes(src, time.Unix(1, 0), time.Unix(1, 0)))
	backUp(t, v, src)
	var changes []string
	sum, err := Diff(context.Background(), v, first.Snapshot.ID.String()+":"+src, "latest:"+src, func(c Change) error {
		changes = append(changes, c.Kind+" "+c.Path)
		return nil
	})
	must(t, err)
	want := []string{"content /changed.txt", "removed /gone", "removed /gone/a.txt", "removed /gone/b", "type /kind", "added /kind/inside",
		"content /link", "metadata /mode.txt", "added /new", "added /new/one.txt"}
	if !slices.Equal(changes, want) {
		t.Errorf("changes %q", changes)
	}
	if sum != (DiffSummary{Added: 3, Removed: 3, Content: 2, Metadata: 1, Types: 1, AddedBytes: 5 + 3 + 1, RemovedBytes: 11 + 10 + 6}) {
		t.Errorf("%+v", sum)
	}
	if sum, err := Diff(context.Background(), v, "latest", "latest", func(c Change) error { return fmt.Errorf("%v", c) }); err != nil || sum != (DiffSummary{}) {
		t.Errorf("%+v %v", sum, err)
	}
	find := func(patterns ...string) (out []string) {
		must(t, Find(context.Background(), v, FindOptions{Patterns: patterns}, func(f Found) error {
			out = append(out, f.Snapshot.ID.Short()[:2]+strings.TrimPrefix(f.Entry.Path, src))
			return nil
		}))
		return out
	}
	old, now := first.Snapshot.ID.Short()[:2], ""
	s, err := v.Find(context.Background(), vault.Latest)
	must(t, err)
	now = s.ID.Short()[:2]
	if got, want := find("*.txt"), []string{now + "/changed.txt", now + "/mode.txt", now + "/new/one.txt", old + "/changed.txt", old + "/gone/a.txt", old + "/mode.txt"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	if got := find("kind/"); !slices.Equal(got, []string{now + "/kind"}) {
		t.Errorf("found %q", got)
	}
	if err := Find(context.Background(), v, FindOptions{}, nil); !errors.Is(err, ErrPattern) {
		t.Error(err)
	}
	stats, err := Stats(context.Background(), v, "latest:"+src)
	must(t, err)
	if stats.Files != 5 || stats.Directories != 4 || stats.Symlinks != 1 || stats.Bytes != 14+5+8+3+1 {
		t.Errorf("%+v", stats)
	}
}

func TestSampleComesBack(t *testing.T) {
	v, segments := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	for i := range 200 {
		write(t, fmt.Sprintf("%s/small%d", src, i), randomBytes(byte(i), 100))
	}
	write(t, src+"/large", randomBytes(250, 40<<20))
	backUp(t, v, src)
	draw := func(seed uint64) Sample {
		s, err := DrawSample(context.Background(), v, vault.Latest, 10, seed)
		must(t, err)
		return s
	}
	large := 0
	for seed := range uint64(20) {
		s := draw(seed)
		if len(s.Files) < 9 || len(s.Files) > 10 {
			t.Fatalf("%d files drawn", len(s.Files))
		}
		if slices.ContainsFunc(s.Files, func(f SampleFile) bool { return f.Entry.Path == src+"/large" }) {
			large++
		}
	}
	if large < 20 {
		t.Errorf("the large file was drawn %d times of 20", large)
	}
	if a, b := draw(7), draw(7); !slices.EqualFunc(a.Files, b.Files, func(x, y SampleFile) bool { return x.Entry.Path == y.Entry.Path }) {
		t.Error("one seed draws two samples")
	}
	scratch := t.TempDir()
	report, err := RestoreSample(context.Background(), v, draw(1), scratch)
	must(t, err)
	if report.Files < 9 || len(report.Failed) != 0 || report.Bytes < 40<<20 {
		t.Errorf("%+v", report)
	}
	for id, data := range segments.segments {
		if len(data) > 15<<20 { // a full pack: listings are in the last one
			delete(segments.segments, id)
			break
		}
	}
	report, err = RestoreSample(context.Background(), v, draw(1), scratch)
	must(t, err)
	if !slices.ContainsFunc(report.Failed, func(f SampleFailure) bool { return f.Path == src+"/large" }) {
		t.Errorf("without a segment: %+v", report)
	}
	if entries, err := os.ReadDir(scratch); err != nil || len(entries) != 0 {
		t.Errorf("%d files left: %v", len(entries), err)
	}
}
