package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

const (
	inputAccess  = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	outputAccess = inputAccess | landlock.AccessFSSet(ll.AccessFSWriteFile|ll.AccessFSMakeReg|ll.AccessFSRemoveFile|ll.AccessFSTruncate)
	codeAccess   = outputAccess | landlock.AccessFSSet(ll.AccessFSMakeDir)
)

// restrictPaths leaves in/ and code/ of the staging directory dir to be read and its
// out/ to be read and written, code/ too while a child compiles, nothing else, and
// forbids whatever else the kernel's version of Landlock can forbid.
func restrictPaths(dir string, d duty) error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return errors.New("this kernel has no Landlock: Linux 5.13 or later with landlock among its security modules is needed")
	}
	code := inputAccess
	if d == dutyCompile {
		code = codeAccess
	}
	return landlock.V9.BestEffort().Restrict(
		landlock.PathAccess(inputAccess, filepath.Join(dir, inputDir)),
		landlock.PathAccess(outputAccess, filepath.Join(dir, outputDir)),
		landlock.PathAccess(code, filepath.Join(dir, codeDir)),
	)
}

// scopeABI is the version of Landlock that can forbid TCP ports, abstract unix
// sockets and signals to others.
const scopeABI = 6

// checkScope says what this kernel's Landlock could not forbid.
func checkScope() error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return err
	}
	if abi < scopeABI {
		return fmt.Errorf("version %d of this kernel's Landlock forbids paths only, version %d (Linux 6.12) network and signals too", abi, scopeABI)
	}
	return nil
}
