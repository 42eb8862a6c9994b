package worker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"gotong/grid/blake3"
	"gotong/tasks"
)

func testStore(t testing.TB, dir string, maxBytes int64) *Store {
	t.Helper()
	s, err := openStore(dir, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return s
}

func content(n int, fill byte) (tasks.ContentID, []byte) {
	data := bytes.Repeat([]byte{fill}, n)
	return blake3.Sum256(data), data
}

func mustPut(t testing.TB, s *Store, n int, fill byte) tasks.ContentID {
	t.Helper()
	id, data := content(n, fill)
	if err := s.Put(t.Context(), id, int64(n), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestStorePutAndOpen(t *testing.T) {
	s := testStore(t, t.TempDir(), 1<<20)
	for _, n := range []int{0, 1, 300_000} {
		id := mustPut(t, s, n, 'x')
		f, size, err := s.Open(id)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		f.Close()
		if err != nil || size != int64(n) || tasks.ContentID(blake3.Sum256(got)) != id {
			t.Errorf("%d bytes: %d came back, %v", n, len(got), err)
		}
		// Again: the source is not read.
		if err := s.Put(t.Context(), id, int64(n), iotest.ErrReader(errors.New("read"))); err != nil {
			t.Errorf("put of what is there: %v", err)
		}
	}
	if n, bytes := s.Stats(); n != 3 || bytes != 300_001 {
		t.Errorf("%d contents of %d bytes", n, bytes)
	}
}

func TestStoreRefuses(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir, 1000)
	id, data := content(100, 'x')
	other, _ := content(1, 'y')
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		ctx  context.Context
		id   tasks.ContentID
		size int64
		r    io.Reader
		want error
	}{
		"another hash":  {t.Context(), other, 100, bytes.NewReader(data), tasks.ErrContent},
		"short":         {t.Context(), id, 101, bytes.NewReader(data), tasks.ErrContent},
		"long":          {t.Context(), id, 99, bytes.NewReader(data), tasks.ErrContent},
		"too large":     {t.Context(), id, 1001, bytes.NewReader(data), tasks.ErrStoreFull},
		"negative size": {t.Context(), id, -1, bytes.NewReader(data), tasks.ErrInvalid},
		"broken source": {t.Context(), id, 100, iotest.ErrReader(broken), broken},
		"cancelled":     {cancelled, id, 100, bytes.NewReader(data), context.Canceled},
	} {
		if err := s.Put(c.ctx, c.id, c.size, c.r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if n, used := s.Stats(); n != 0 || used != 0 {
		t.Errorf("%d contents of %d bytes", n, used)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, incomingDir)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStoreForgetsWhatWasUsedLeastRecently(t *testing.T) {
	s := testStore(t, t.TempDir(), 300)
	a, b, c := mustPut(t, s, 100, 'a'), mustPut(t, s, 100, 'b'), mustPut(t, s, 100, 'c')
	if !s.Has(a) {
		t.Fatal("a is gone") // and is now the one used last
	}
	if err := s.pin([]tasks.ContentID{b}); err != nil {
		t.Fatal(err)
	}
	d := mustPut(t, s, 150, 'd')
	if missing := s.Missing([]tasks.ContentID{d, c, b, a}); len(missing) != 2 || missing[0] != c || missing[1] != a {
		t.Errorf("missing %v, want c and a", missing)
	}
	id, data := content(200, 'e')
	if err := s.Put(t.Context(), id, 200, bytes.NewReader(data)); err != nil {
		t.Errorf("beside 100 pinned bytes: %v", err)
	}
	id, data = content(201, 'f')
	if err := s.Put(t.Context(), id, 201, bytes.NewReader(data)); !errors.Is(err, tasks.ErrStoreFull) {
		t.Errorf("above what is not pinned: %v", err)
	}
	if m, ok := errors.AsType[*tasks.MissingContent](s.pin([]tasks.ContentID{b, c})); !ok || len(m.IDs) != 1 || m.IDs[0] != c {
		t.Errorf("pin of what is not there: %v", m)
	}
	s.unpin([]tasks.ContentID{b})
	mustPut(t, s, 300, 'g')
	if s.Has(b) {
		t.Error("b outlives its pin")
	}
}

func TestStoreAfterRestart(t *testing.T) {
	dir := t.TempDir()
	s := testStore(t, dir, 1000)
	good, bad, short := mustPut(t, s, 100, 'g'), mustPut(t, s, 100, 'b'), mustPut(t, s, 100, 's')
	s.close()
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, incomingDir, "1"), []byte("half"), 0o600),
		os.WriteFile(filepath.Join(dir, contentDir, "foreign"), []byte("not ours"), 0o600),
		os.Chmod(filepath.Join(dir, contentPath(bad)), 0o600),
		os.WriteFile(filepath.Join(dir, contentPath(bad)), bytes.Repeat([]byte("x"), 100), 0o600),
		os.Chmod(filepath.Join(dir, contentPath(short)), 0o600),
		os.Truncate(filepath.Join(dir, contentPath(short)), 50),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s = testStore(t, dir, 1000)
	if f, _, err := s.Open(good); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	for _, id := range []tasks.ContentID{bad, short} {
		if _, _, err := s.Open(id); !errors.Is(err, tasks.ErrNoContent) || !errors.Is(err, tasks.ErrContent) {
			t.Errorf("damaged content: %v", err)
		}
		if s.Has(id) {
			t.Error("damaged content is still there")
		}
	}
	if _, err := os.Stat(filepath.Join(dir, incomingDir, "1")); err == nil {
		t.Error("unfinished content is still there")
	}
	s.close()
	if s = testStore(t, dir, 50); s.Has(good) {
		t.Error("a store with a smaller bound keeps more")
	}
}

func TestStoreAgainstPathsOfOthers(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, contentDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, contentDir, strings.Repeat("0", 2))); err != nil {
		t.Skip("no symbolic links here")
	}
	s := testStore(t, dir, 1000)
	if err := s.commit(tasks.ContentID{}, 0, filepath.Join(incomingDir, "1"), 0); err == nil {
		t.Error("content was stored through a link that leads outside")
	}
}
