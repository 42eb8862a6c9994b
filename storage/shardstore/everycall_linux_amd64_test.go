package shardstore_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gotong/grid/disk/disktest"
	"gotong/storage/shardstore"
)

// realDir is a store in a directory.
type realDir struct {
	t   *testing.T
	dir string
}

func (d realDir) open() (*shardstore.Store, error) {
	return shardstore.Open(filepath.Join(d.dir, "store"), shardstore.Config{KeepFreeBytes: -1})
}

// sizes fails the test when it finds an unfinished file.
func (d realDir) sizes() (size int64) {
	root := os.DirFS(filepath.Join(d.dir, "store"))
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if strings.HasSuffix(name, ".tmp") {
			d.t.Errorf("%s was left behind", name)
		}
		if info, err := entry.Info(); err != nil {
			return err
		} else if strings.Contains(name, "/") {
			size += info.Size()
		}
		return nil
	})
	if err != nil {
		d.t.Error(err)
	}
	return size
}

var callFaults = []syscall.Errno{syscall.EIO, syscall.ENOSPC}

// TestPutAtEveryCall stops a real process, which stores on a real file system,
// at each call to the kernel that changes a file.
func TestPutAtEveryCall(t *testing.T) {
	w := newWorkload(t)
	disktest.EachCall(t, disktest.Case{Faults: callFaults, Calls: 30,
		Work: func(dir string, say func(string)) {
			w.say = say
			if s, err := (realDir{t, dir}).open(); err == nil {
				w.run(s)
				_ = s.Close()
			}
		},
		Check: func(dir string, said []string, when string) {
			w.forget()
			for _, event := range said {
				w.note(event)
			}
			place := realDir{t, dir}
			w.check(place, when)
			w.again(place, when+", done again")
			w.check(place, when+", done again")
		}})
}

// TestDeleteAtEveryCall does the same with all that takes shards away.
func TestDeleteAtEveryCall(t *testing.T) {
	w := newDeleting(t)
	disktest.EachCall(t, disktest.Case{Faults: callFaults, Calls: 20,
		Prepare: func(dir string) { w.prepare(realDir{t, dir}) },
		Work: func(dir string, say func(string)) {
			w.say = say
			w.run(realDir{t, dir}, false, func() bool { return false })
		},
		Check: func(dir string, said []string, when string) {
			for _, event := range said {
				w.note(event)
			}
			place := realDir{t, dir}
			w.check(place, when)
			w.firstAcked, w.secondAcked = false, false
			w.run(place, true, func() bool { return false })
			if !w.firstAcked || !w.secondAcked {
				t.Fatalf("%s: not acknowledged when done again", when)
			}
			w.check(place, when+", done again")
		}})
}
