package disk_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"gotong/grid/disk"
)

func TestWriteFileReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, content := range []string{"old", "new content"} {
		if err := disk.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := disk.ReadFile(path, 100); err != nil || string(got) != content {
			t.Fatalf("read %q: %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || (runtime.GOOS != "windows" && info.Mode().Perm() != 0o600) {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
	if _, err := disk.ReadFile(path, 5); err == nil {
		t.Error("a file beyond the bound was read")
	}
	if err := disk.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := disk.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

func TestWriteFileFailsWhole(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "directory")
	if err := os.MkdirAll(filepath.Join(target, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteFile(target, []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("a temporary file stays: %v %v", entries, err)
	}
	if err := disk.WriteFile(filepath.Join(dir, "missing", "file"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into a missing directory: %v", err)
	}
}

func TestRemoveTemps(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, name := range []string{".file.123.tmp", "file", ".other.1.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(disk.RemoveTemps(path), disk.RemoveTemps(filepath.Join(dir, "missing", "x"))); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left: %v %v", entries, err)
	}
	if err := errors.Join(disk.RemoveAllTemps(dir), disk.RemoveAllTemps(filepath.Join(dir, "missing"))); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != "file" {
		t.Errorf("left: %v %v", entries, err)
	}
}
