package snapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// craft commits a snapshot whose listings are exactly what build makes.
func craft(t testing.TB, v *vault.Vault, build func(w *vault.Writer) vault.Ref) {
	t.Helper()
	s, err := v.Begin(context.Background())
	must(t, err)
	defer s.Abort()
	w, err := s.NewWriter()
	must(t, err)
	root := build(w)
	_, err = s.Commit(vault.Snapshot{Created: time.Now(), Root: root})
	must(t, err)
}

func listing(t testing.TB, w *vault.Writer, nodes ...*vaultv1.Node) vault.Ref {
	t.Helper()
	var l vault.Listing
	for _, n := range nodes {
		b, err := encodeNode(nil, n)
		must(t, err)
		must(t, w.Append(&l, b))
	}
	ref, err := w.Finish(&l)
	must(t, err)
	return ref
}

func content(t testing.TB, w *vault.Writer, s string) *vaultv1.Ref {
	t.Helper()
	o, err := w.Put(strings.NewReader(s), int64(len(s)))
	must(t, err)
	return o.Ref.Proto()
}

func TestHostileSnapshotStaysInside(t *testing.T) {
	outside := t.TempDir()
	file := func(w *vault.Writer, name string) *vaultv1.Node {
		return &vaultv1.Node{Name: []byte(name), Type: vaultv1.Node_FILE, Mode: 0o644, Size: 4, Content: content(t, w, "evil")}
	}
	dir := func(w *vault.Writer, name string, nodes ...*vaultv1.Node) *vaultv1.Node {
		return &vaultv1.Node{Name: []byte(name), Type: vaultv1.Node_DIRECTORY, Mode: 0o755, Content: listing(t, w, nodes...).Proto()}
	}
	link := func(name, target string) *vaultv1.Node {
		return &vaultv1.Node{Name: []byte(name), Type: vaultv1.Node_SYMLINK, Target: []byte(target)}
	}
	cases := map[string]func(w *vault.Writer) []*vaultv1.Node{
		"dot dot":     func(w *vault.Writer) []*vaultv1.Node { return []*vaultv1.Node{file(w, "..")} },
		"dot":         func(w *vault.Writer) []*vaultv1.Node { return []*vaultv1.Node{file(w, ".")} },
		"climbs":      func(w *vault.Writer) []*vaultv1.Node { return []*vaultv1.Node{file(w, "../escaped")} },
		"absolute":    func(w *vault.Writer) []*vaultv1.Node { return []*vaultv1.Node{file(w, outside+"/escaped")} },
		"slash":       func(w *vault.Writer) []*vaultv1.Node { return []*vaultv1.Node{file(w, "a/b")} },
		"nul":         func(w *vault.Writer) []*vaultv1.Node { return []*vaultv1.Node{file(w, "a\x00b")} },
		"no name":     func(w *vault.Writer) []*vaultv1.Node { return []*vaultv1.Node{file(w, "")} },
		"dir dot dot": func(w *vault.Writer) []*vaultv1.Node { return []*vaultv1.Node{dir(w, "..", file(w, "escaped"))} },
		"dir through a link of the same name": func(w *vault.Writer) []*vaultv1.Node {
			return []*vaultv1.Node{link("x", outside), dir(w, "x", file(w, "escaped"))}
		},
		"out of order": func(w *vault.Writer) []*vaultv1.Node { return []*vaultv1.Node{file(w, "b"), file(w, "a")} },
		"size is a lie": func(w *vault.Writer) []*vaultv1.Node {
			n := file(w, "a")
			n.Size = 1 << 40
			return []*vaultv1.Node{n}
		},
		"extents beyond the end": func(w *vault.Writer) []*vaultv1.Node {
			n := file(w, "a")
			n.Sparse, n.Extents = true, []*vaultv1.Extent{{Offset: 1 << 60, Length: 4}}
			return []*vaultv1.Node{n}
		},
		"content is elsewhere": func(w *vault.Writer) []*vaultv1.Node {
			n := file(w, "a")
			n.Content = &vaultv1.Ref{Hash: make([]byte, 32), Size: 4}
			return []*vaultv1.Node{n}
		},
		"list is none": func(w *vault.Writer) []*vaultv1.Node {
			n := file(w, "a")
			n.Content.Depth = 1
			return []*vaultv1.Node{n}
		},
		"unknown type": func(w *vault.Writer) []*vaultv1.Node {
			return []*vaultv1.Node{{Name: []byte("a"), Type: 99}}
		},
	}
	for name, nodes := range cases {
		t.Run(name, func(t *testing.T) {
			v, _ := newVault(t)
			craft(t, v, func(w *vault.Writer) vault.Ref { return listing(t, w, nodes(w)...) })
			place := t.TempDir()
			target := filepath.Join(place, "target")
			s, err := Restore(context.Background(), v, vault.Latest, target, RestoreOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if s.Skipped == 0 {
				t.Error("nothing was skipped")
			}
			for _, dir := range []string{place, outside} {
				err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
					if !d.IsDir() && (!strings.HasPrefix(path, target+"/") || d.Type().IsRegular() && name != "out of order") {
						t.Errorf("%s was written", path)
					}
					return err
				})
				must(t, err)
			}
		})
	}
}

func TestOneBadFileDoesNotStopTheRest(t *testing.T) {
	v, _ := newVault(t)
	craft(t, v, func(w *vault.Writer) vault.Ref {
		good := func(name string) *vaultv1.Node {
			return &vaultv1.Node{Name: []byte(name), Type: vaultv1.Node_FILE, Mode: 0o644, Size: 4, Content: content(t, w, "good")}
		}
		bad := good("b")
		bad.Content = &vaultv1.Ref{Hash: make([]byte, 32), Size: 4}
		return listing(t, w, good("a"), bad, good("c"))
	})
	target := t.TempDir()
	var why error
	s, err := Restore(context.Background(), v, vault.Latest, target, RestoreOptions{Skipped: func(path string, err error) { why = err }})
	must(t, err)
	if s.Files != 2 || s.Skipped != 1 || !errors.Is(why, vault.ErrMissing) {
		t.Errorf("%+v, %v", s, why)
	}
	entries, err := os.ReadDir(target)
	must(t, err)
	if len(entries) != 2 {
		t.Errorf("%v", entries)
	}
}

func FuzzNode(f *testing.F) {
	for _, n := range []*vaultv1.Node{
		{Name: []byte("a"), Type: vaultv1.Node_FILE, Size: 3, Content: &vaultv1.Ref{Hash: make([]byte, 32), Size: 3}, Link: &vaultv1.HardLink{Device: 1, Inode: 2, Names: 2}},
		{Name: []byte("b"), Type: vaultv1.Node_SYMLINK, Target: []byte("x"), Xattrs: []*vaultv1.Xattr{{Name: []byte("user.x"), Value: []byte{0}}}},
		{Name: []byte("c"), Type: vaultv1.Node_FILE, Sparse: true, Size: 100, Extents: []*vaultv1.Extent{{Offset: 5, Length: 5}}, Content: &vaultv1.Ref{Hash: make([]byte, 32), Size: 5}},
	} {
		b, err := encodeNode(nil, n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		node, rest, err := cutNode(b)
		if err != nil || node == nil {
			return
		}
		if len(rest) >= len(b) {
			t.Fatal("nothing was cut off")
		}
		again, err := encodeNode(nil, node)
		if err != nil {
			return // unknown fields may be longer written out
		}
		back, _, err := cutNode(again)
		if err != nil || !proto.Equal(back, node) {
			t.Fatalf("%v, %v", back, err)
		}
	})
}

func FuzzStateRecord(f *testing.F) {
	r := &stateRecord{key: []byte("dir\x00file\x00"), meta: fileState{1, 2, 3, 4, 5}, node: []byte("node"), blobs: make([]vault.BlobID, 2)}
	f.Add(appendRecord(nil, r)[recordHeadBytes:])
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRecord(body)
		if err != nil {
			return
		}
		back, err := parseRecord(appendRecord(nil, &r)[recordHeadBytes:])
		if err != nil || string(back.key) != string(r.key) || back.meta != r.meta || string(back.node) != string(r.node) || len(back.blobs) != len(r.blobs) {
			t.Fatalf("%+v, %v", back, err)
		}
	})
}

// TestDamagedStateIsIgnored alters the state file at many places: the next
// backup is right whatever it says.
func TestDamagedStateIsIgnored(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	for _, name := range []string{"a", "b/c", "b/d", "e"} {
		write(t, src+"/"+name, randomBytes(name[0], 2000))
	}
	waitUntilSettled(t, src)
	backUp(t, v, src)
	path := statePath(v.StateDir(), src)
	good, err := os.ReadFile(path)
	must(t, err)
	for i := 0; i < len(good); i += 41 {
		bad := append([]byte(nil), good...)
		bad[i] ^= 0x40
		if i%3 == 0 {
			bad = bad[:i]
		}
		must(t, os.WriteFile(path, bad, 0o600))
		if s := backUp(t, v, src); s.Files != 4 || s.NewBytes > 2000 {
			t.Fatalf("damage at %d: %+v", i, s)
		}
	}
	compare(t, src, restoreAll(t, v, src))
}

// TestStateOfACutShortBackup: what an interrupted backup learnt is used.
func TestStateOfACutShortBackup(t *testing.T) {
	dir := t.TempDir()
	key := func(i int) []byte { return []byte{byte('a' + i), 0} }
	run := func(from, to, size int, done bool) {
		s := beginState(dir, "/x", false)
		for i := from; i < to; i++ {
			s.add(&stateRecord{key: key(i), meta: fileState{size: int64(size)}})
		}
		must(t, s.finish(done))
	}
	run(0, 10, 1, true)
	run(0, 4, 2, false)
	s := beginState(dir, "/x", false)
	for i := range 10 {
		r, ok := s.find(key(i))
		want := int64(1)
		if i < 4 {
			want = 2
		}
		if !ok || r.meta.size != want {
			t.Errorf("%d: %v %+v", i, ok, r.meta)
		}
	}
	must(t, s.finish(true))
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%d files left, %v", len(entries), err)
	}
}
