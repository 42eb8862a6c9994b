package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// mountFlags hold for every mount of a child.
const mountFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// ownMounts gives the calling thread, and what it executes, a root of its own: an
// empty file system in memory with the directories of the staging directory, in
// which it is called, and a /proc that has its process namespace only. Nothing is
// left of the machine's mounts with which a new namespace begins: a copy would keep
// a disk busy that the machine unmounts, and whoever serves a FUSE mount would not
// hear of its end.
func ownMounts() error {
	staging, err := syscall.Getwd()
	if err != nil {
		return fmt.Errorf("staging directory: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mounts of its own: %w", err)
	}
	// What the machine unmounts at this moment goes here too.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("mounts of its own: %w", err)
	}
	// It covers the staging directory, which remains the working directory.
	if err := unix.Mount("gotong", staging, "tmpfs", mountFlags, "mode=0755,size=64k,nr_inodes=16"); err != nil {
		return fmt.Errorf("a root directory of its own: %w", err)
	}
	for _, name := range []string{inputDir, outputDir, codeDir} {
		if err := bindInto(staging, name); err != nil {
			return fmt.Errorf("%s/ of its own: %w", name, err)
		}
	}
	proc := filepath.Join(staging, "proc")
	if err := os.Mkdir(proc, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("proc", proc, "proc", mountFlags, "subset=pid"); err != nil {
		return fmt.Errorf("a /proc of its own: %w", err)
	}
	if err := remount(staging, unix.MS_RDONLY); err != nil {
		return fmt.Errorf("a root directory that cannot be written: %w", err)
	}
	return enter(staging)
}

// bindInto shows a directory of the working directory in root. Inputs cannot be
// written through it.
func bindInto(root, name string) error {
	place := filepath.Join(root, name)
	if err := os.Mkdir(place, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(name, place, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if name == inputDir {
		return remount(place, unix.MS_RDONLY)
	}
	return remount(place, 0)
}

func remount(place string, flags uintptr) error {
	return unix.Mount("", place, "", unix.MS_BIND|unix.MS_REMOUNT|mountFlags|flags, "")
}

// enter makes root the root directory and lets go of the old one, which lies over
// it for a moment (pivot_root(2)).
func enter(root string) error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root directory: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the machine's mounts: %w", err)
	}
	return unix.Chdir("/")
}
