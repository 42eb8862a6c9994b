package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// restoreInto restores the newest snapshot and returns what was done, by path.
func restoreInto(t testing.TB, v *vault.Vault, target string, options RestoreOptions) (RestoreSummary, map[string]string) {
	t.Helper()
	did := map[string]string{}
	options.Done = func(action, path string) { did[path] = action }
	if options.Skipped == nil {
		options.Skipped = func(path string, err error) { t.Errorf("skipped %q: %v", path, err) }
	}
	s, err := Restore(context.Background(), v, vault.Latest, target, options)
	must(t, err)
	return s, did
}

func only(did map[string]string, not ...string) (out []string) {
	for path, action := range did {
		if !slices.Contains(not, action) {
			out = append(out, action+" "+path)
		}
	}
	slices.Sort(out)
	return out
}

func TestRestoreInPlaceWritesWhatDiffers(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	big := randomBytes(1, 24<<20)
	for name, content := range map[string][]byte{"big": big, "same": []byte("same"), "text": []byte("text"), "d/touched": []byte("touched"), "d/mode": []byte("mode"), "gone": []byte("gone"), "short": []byte("longer"), "long": []byte("long")} {
		write(t, src+"/"+name, content)
	}
	must(t, os.Link(src+"/same", src+"/twin"))
	must(t, os.Symlink("text", src+"/link"))
	must(t, os.Symlink("text", src+"/kept-link"))
	must(t, os.Mkdir(src+"/was-dir", 0o755))
	backUp(t, v, src)
	target := restoreAll(t, v, src)
	inodes := func() map[string]uint64 {
		out := map[string]uint64{}
		d, err := openSource(target)
		must(t, err)
		defer d.close()
		for _, name := range []string{"big", "same", "twin", "text", "kept-link", "short"} {
			m, err := d.lstat(name)
			must(t, err)
			out[name] = m.inode
		}
		return out
	}
	before := inodes()
	s, did := restoreInto(t, v, target, RestoreOptions{Path: src, Verify: true})
	if s.FetchedBytes != 0 || len(only(did, ActionUnchanged)) != 0 || s.Files != 9 || s.Verified != 9 || !maps.Equal(before, inodes()) {
		t.Errorf("again: %+v, %q", s, only(did, ActionUnchanged))
	}
	// A few bytes of a large file, with the times as they were.
	info, err := os.Stat(target + "/big")
	must(t, err)
	f, err := os.OpenFile(target+"/big", os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("damage"), 13<<20)
	must(t, errors.Join(err, f.Close(), os.Chtimes(target+"/big", info.ModTime(), info.ModTime())))
	must(t, os.Chtimes(target+"/d/touched", time.Unix(5, 5), time.Unix(5, 5)))
	must(t, os.Chmod(target+"/d/mode", 0o600))
	must(t, os.Remove(target+"/gone"))
	must(t, os.Remove(target+"/link"))
	must(t, os.Symlink("elsewhere", target+"/link"))
	write(t, target+"/short", []byte("long"))
	write(t, target+"/long", []byte("long and more"))
	write(t, target+"/extra/deep/file", []byte("extra"))
	want := []string{"metadata d/mode", "metadata d/touched", "new gone", "replaced big", "replaced link", "replaced long", "replaced short"}
	blind, did := restoreInto(t, v, target, RestoreOptions{Path: src, DryRun: true, Compare: CompareTimes})
	if got := only(did, ActionUnchanged); !slices.Equal(got, slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "replaced big" })) {
		t.Errorf("by times: %+v, %q", blind, got)
	}
	dry, did := restoreInto(t, v, target, RestoreOptions{Path: src, DryRun: true})
	if got := only(did, ActionUnchanged); !slices.Equal(got, want) {
		t.Errorf("dry: %+v, %q", dry, got)
	}
	if _, err := os.Lstat(target + "/gone"); err == nil {
		t.Error("a dry run wrote")
	}
	s, did = restoreInto(t, v, target, RestoreOptions{Path: src, Verify: true})
	if got := only(did, ActionUnchanged); !slices.Equal(got, want) || s.FetchedBytes != dry.FetchedBytes || s.FetchedBytes > 5<<20 || s.FetchedBytes == 0 {
		t.Errorf("%+v, %q", s, got)
	}
	must(t, os.RemoveAll(target+"/extra"))
	compare(t, src, target)
}

func TestRestoreDeletesWhatIsExtra(t *testing.T) {
	v, _ := newVault(t)
	base := t.TempDir()
	src := filepath.Join(base, "src")
	for _, name := range []string{"a", "d/b", "d/c", "partial/keep", "partial/x.tmp", "z"} {
		write(t, src+"/"+name, []byte(name))
	}
	backUpWith(t, v, BackupOptions{Paths: []string{src}, Exclude: []string{"*.tmp"}, Host: "h"})
	home := filepath.Join(src, "d", "new", "home")
	grow := func() {
		for _, name := range []string{"0", "d/bb", "d/extra/deep/er", "partial/extra", "partial/x.tmp", "zz", "d/saved.log"} {
			write(t, src+"/"+name, []byte(name))
		}
		must(t, os.RemoveAll(src+"/z"))
		must(t, os.Mkdir(src+"/z", 0o755))
		write(t, src+"/z/inside", nil)
		write(t, home+"/index.db", nil)
	}
	grow()
	write(t, base+"/beside", nil)
	options := RestoreOptions{Delete: true, Exclude: []string{"*.log"}, Never: []string{home}, DryRun: true}
	var skipped []string
	options.Skipped = func(path string, err error) { skipped = append(skipped, err.Error()) }
	_, said := restoreInto(t, v, "/", options)
	options.DryRun = false
	_, did := restoreInto(t, v, "/", options)
	if !maps.Equal(said, did) {
		t.Errorf("said %v, did %v", said, did)
	}
	if len(skipped) != 2 || !strings.Contains(skipped[1], "never removed") {
		t.Errorf("skipped %q", skipped)
	}
	var left []string
	must(t, filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if !d.IsDir() {
			left = append(left, strings.TrimPrefix(path, base+"/"))
		}
		return err
	}))
	// What is above src was not backed up, and from partial a file was left out.
	want := []string{"beside", "src/a", "src/d/b", "src/d/c", "src/d/new/home/index.db", "src/d/saved.log", "src/partial/extra", "src/partial/keep", "src/partial/x.tmp", "src/z"}
	if !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
}

func TestRestoreOnlyWhatIsIncluded(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	for _, name := range []string{"a.jpg", "b.txt", "d/c.jpg", "d/e/f.txt", "d/e/g.jpg", "empty/h.txt", "whole/i", "whole/j.tmp"} {
		write(t, src+"/"+name, []byte(name))
	}
	must(t, os.Chtimes(src+"/d", time.Unix(7, 7), time.Unix(7, 7)))
	backUp(t, v, src)
	for name, c := range map[string]struct {
		options RestoreOptions
		want    []string
	}{
		"include":              {RestoreOptions{Include: []string{"*.jpg", "!g.jpg"}}, []string{"a.jpg", "d", "d/c.jpg"}},
		"directory":            {RestoreOptions{Include: []string{"/whole/"}, Exclude: []string{"*.tmp"}}, []string{"whole", "whole/i"}},
		"by the whole path":    {RestoreOptions{Include: []string{src + "/d/e/f.txt"}}, []string{"d", "d/e", "d/e/f.txt"}},
		"exclude":              {RestoreOptions{Exclude: []string{"d", "*.tmp"}}, []string{"a.jpg", "b.txt", "empty", "empty/h.txt", "whole", "whole/i"}},
		"nothing is like that": {RestoreOptions{Include: []string{"*.png"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c.options.Path, c.options.Verify = src, true
			var last Progress
			c.options.Progress = func(p Progress) { last = p }
			target := t.TempDir()
			sum, _ := restoreInto(t, v, target, c.options)
			if last.TotalFiles != sum.Files || last.TotalBytes != sum.Bytes || last.Bytes != sum.Bytes {
				t.Errorf("progress to %+v of a restore of %d files with %d bytes", last, sum.Files, sum.Bytes)
			}
			got := describe(t, target)
			if paths := slices.Sorted(maps.Keys(got)); !slices.EqualFunc(paths, c.want, func(a, b string) bool { return a == "/"+b }) {
				t.Errorf("restored %q", paths)
			}
			all := describe(t, src)
			for path, line := range got {
				if all[path] != line {
					t.Errorf("%s came back as %s, was %s", path, line, all[path])
				}
			}
		})
	}
	if _, did := restoreInto(t, v, filepath.Join(t.TempDir(), "new"), RestoreOptions{Path: src, Include: []string{"g.jpg"}, DryRun: true}); !maps.Equal(did, map[string]string{"d": ActionNew, "d/e": ActionNew, "d/e/g.jpg": ActionNew}) {
		t.Errorf("dry: %v", did)
	}
}

func TestOverwritePolicies(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	for _, name := range []string{"newer", "older", "missing"} {
		write(t, src+"/"+name, []byte("snapshot"))
		must(t, os.Chtimes(src+"/"+name, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	}
	must(t, os.Chtimes(src, time.Unix(1e9, 0), time.Unix(1e9, 0)))
	backUp(t, v, src)
	for policy, want := range map[Overwrite]string{OverwriteAny: "missing=new newer=replaced older=replaced", OverwriteOlder: "missing=new newer=kept older=replaced",
		OverwriteNone: "missing=new newer=kept older=kept"} {
		target := t.TempDir()
		for name, at := range map[string]int64{"newer": 2e9, "older": 1e8} {
			write(t, target+"/"+name, []byte("disk"))
			must(t, os.Chtimes(target+"/"+name, time.Unix(at, 0), time.Unix(at, 0)))
		}
		_, did := restoreInto(t, v, target, RestoreOptions{Path: src, Overwrite: policy, Verify: true})
		var got []string
		for name, action := range did {
			got = append(got, name+"="+action)
			content, err := os.ReadFile(target + "/" + name)
			must(t, err)
			if (string(content) == "disk") != (action == ActionKept) {
				t.Errorf("%s is %s", name, content)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("policy %d: %q", policy, got)
		}
	}
}

// TestVerifyFindsWhatIsWrong: a file that has its size and times and another
// content is believed by CompareTimes, and found by Verify.
func TestVerifyFindsWhatIsWrong(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	write(t, src+"/file", []byte("right"))
	write(t, src+"/other", []byte("other"))
	backUp(t, v, src)
	target := restoreAll(t, v, src)
	info, err := os.Stat(target + "/file")
	must(t, err)
	write(t, target+"/file", []byte("wrong"))
	must(t, os.Chtimes(target+"/file", info.ModTime(), info.ModTime()))
	var found error
	s, _ := restoreInto(t, v, target, RestoreOptions{Path: src, Compare: CompareTimes, Verify: true, Skipped: func(_ string, err error) { found = err }})
	if s.Skipped != 1 || s.Verified != 1 || !errors.Is(found, errNotWritten) {
		t.Errorf("%+v, %v", s, found)
	}
	s, _ = restoreInto(t, v, target, RestoreOptions{Path: src, Verify: true})
	if s.Verified != 2 {
		t.Errorf("%+v", s)
	}
}

// TestLinkToElsewhereIsBroken: what has another name outside of the snapshot is
// not changed through the restored one.
func TestLinkToElsewhereIsBroken(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	write(t, src+"/file", []byte("content"))
	must(t, os.Chmod(src+"/file", 0o600))
	backUp(t, v, src)
	place := t.TempDir()
	target := filepath.Join(place, "target")
	must(t, os.Mkdir(target, 0o755))
	write(t, place+"/precious", []byte("content"))
	must(t, os.Link(place+"/precious", target+"/file"))
	restoreInto(t, v, target, RestoreOptions{Path: src})
	info, err := os.Stat(place + "/precious")
	must(t, err)
	if info.Mode().Perm() != 0o644 {
		t.Errorf("mode of the other name is %v", info.Mode())
	}
	compare(t, src, target)
}

// TestNamesThatCollide: of two names that a file system takes for one the second
// is reported, not put over the first.
func TestNamesThatCollide(t *testing.T) {
	r := &restore{fold: true}
	d := newTopDir(r, nil, true)
	for name, want := range map[string]error{"README": nil, "other": nil} {
		if err := d.claim(name); !errors.Is(err, want) {
			t.Error(err)
		}
	}
	for _, name := range []string{"readme", "ReadMe", "OTHER"} {
		if err := d.claim(name); !errors.Is(err, ErrCollision) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := newTopDir(&restore{}, nil, true).claim("x"); err != nil {
		t.Error(err)
	}
}

// TestSparseInPlace: a hole that was written to is a hole again, and the rest is
// not fetched.
func TestSparseInPlace(t *testing.T) {
	v, _ := newVault(t)
	src := filepath.Join(t.TempDir(), "src")
	must(t, os.Mkdir(src, 0o755))
	f, err := os.Create(src + "/holes")
	must(t, err)
	for i, off := range []int64{0, 5 << 20, 20 << 20} {
		_, err := f.WriteAt(randomBytes(byte(i), 3<<20), off)
		must(t, err)
	}
	must(t, errors.Join(f.Truncate(40<<20), f.Close()))
	backUp(t, v, src)
	target := restoreAll(t, v, src)
	if s, did := restoreInto(t, v, target, RestoreOptions{Path: src}); did["holes"] != ActionUnchanged || s.FetchedBytes != 0 {
		t.Errorf("again: %+v %v", s, did)
	}
	f, err = os.OpenFile(target+"/holes", os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("not a hole"), 30<<20)
	must(t, errors.Join(err, f.Close()))
	if s, did := restoreInto(t, v, target, RestoreOptions{Path: src, Verify: true}); did["holes"] != ActionReplaced || s.FetchedBytes != 0 || s.Verified != 1 {
		t.Errorf("a hole that was written to: %+v %v", s, did)
	}
	a, err := os.ReadFile(src + "/holes")
	must(t, err)
	b, err := os.ReadFile(target + "/holes")
	must(t, err)
	if !bytes.Equal(a, b) {
		t.Error("another content came back")
	}
}

// TestHostileLinkInTarget: a directory of the target that is swapped for a link
// while the restore runs leads nowhere.
func TestHostileLinkInTarget(t *testing.T) {
	v, _ := newVault(t)
	outside := t.TempDir()
	write(t, outside+"/f0", []byte("precious"))
	craft(t, v, func(w *vault.Writer) vault.Ref {
		var files []*vaultv1.Node
		for i := range 200 {
			text := fmt.Sprintf("%0100d", i)
			files = append(files, &vaultv1.Node{Name: []byte(fmt.Sprintf("f%03d", i)), Type: vaultv1.Node_FILE, Mode: 0o644, Size: 100, Content: content(t, w, text)})
		}
		return listing(t, w, &vaultv1.Node{Name: []byte("d"), Type: vaultv1.Node_DIRECTORY, Mode: 0o755, Whole: true, Content: listing(t, w, files...).Proto()})
	})
	target := t.TempDir()
	swapped := false
	_, err := Restore(context.Background(), v, vault.Latest, target, RestoreOptions{Delete: true, Done: func(_, path string) {
		if !swapped {
			swapped = true
			must(t, os.Rename(target+"/d", target+"/away"))
			must(t, os.Symlink(outside, target+"/d"))
		}
	}, Skipped: func(string, error) {}})
	must(t, err)
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 || !swapped {
		t.Errorf("%d entries outside, swapped %v, %v", len(entries), swapped, err)
	}
}
