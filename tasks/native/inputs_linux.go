package native

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"gotong/tasks"
)

// foreignRuns is the beginning of directories that root makes for commands of
// another user, outside its own directories, which that user cannot enter. The
// number of root's process follows.
const foreignRuns = "gotong-native-"

// runDir makes the directory of inputs of one command: own, or one that the user of
// the command may enter. The caller removes it.
func (r *Runtime) runDir(own string) (string, error) {
	if r.user == nil && own != "" {
		return own, os.Mkdir(own, 0o700)
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", foreignRuns, os.Getpid()))
	if err == nil && r.user != nil {
		err = os.Chown(dir, int(r.user.Uid), int(r.user.Gid))
	}
	return dir, err
}

// removeStale removes what a process of root left that was killed.
func removeStale() {
	list, _ := filepath.Glob(filepath.Join(os.TempDir(), foreignRuns+"*"))
	for _, dir := range list {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), foreignRuns+"%d-", &pid); err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			os.RemoveAll(dir)
		}
	}
}

// layOut gives the inputs their names below dir.
func (b *Box) layOut(dir string, inputs []tasks.Input) error {
	for _, in := range inputs {
		to := filepath.Join(dir, filepath.FromSlash(in.Name))
		if err := b.makeDirs(dir, filepath.Dir(to)); err != nil {
			return err
		}
		give := os.Link
		if b.runtime.user != nil {
			give = b.copyTo
		}
		if err := give(b.InputPath(in.Content), to); err != nil {
			return fmt.Errorf("input %q: %w", in.Name, err)
		}
	}
	return nil
}

// makeDirs makes dir, which is below base, for the user of the command.
func (b *Box) makeDirs(base, dir string) error {
	if dir == base {
		return nil
	}
	if err := b.makeDirs(base, filepath.Dir(dir)); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o700)
	switch {
	case errors.Is(err, os.ErrExist):
		return nil
	case err == nil && b.runtime.user != nil:
		return os.Chown(dir, int(b.runtime.user.Uid), int(b.runtime.user.Gid))
	}
	return err
}

// copyTo gives the user of the command a copy of its own.
func (b *Box) copyTo(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, source)
	return errors.Join(err, f.Chown(int(b.runtime.user.Uid), int(b.runtime.user.Gid)), f.Close())
}
