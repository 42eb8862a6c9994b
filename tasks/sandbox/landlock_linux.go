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

// restrictPaths leaves the staging directory's in/ and code/ to be read and its
// out/ to be read and written, code/ too while a child compiles, nothing else, and forbids whatever else the kernel's
// version of Landlock can forbid.
func restrictPaths(s setup) error {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		return errors.New("this kernel has no Landlock: Linux 5.13 or later with landlock among its security modules is needed")
	}
	code := inputAccess
	if s.Duty == dutyCompile {
		code = codeAccess
	}
	return landlock.V9.BestEffort().Restrict(
		landlock.PathAccess(inputAccess, filepath.Join(s.Dir, inputDir)),
		landlock.PathAccess(outputAccess, filepath.Join(s.Dir, outputDir)),
		landlock.PathAccess(code, filepath.Join(s.Dir, codeDir)),
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
