package native

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"gotong/tasks"
	"gotong/tasks/sandbox"
)

// outputs are the files that a command left below /out. They live in memory for as
// long as root is open; the command and all that it started have ended.
type outputs struct {
	root  *os.Root
	users int // under Box.mu: files in use, and the command until it was answered
}

// release closes the files when nobody uses them; Box.mu is held.
func (o *outputs) release() error {
	if o.users--; o.users > 0 {
		return nil
	}
	return o.root.Close()
}

// fault is what is wrong with what a command left.
type fault struct {
	limit tasks.Limit
	why   string
}

// Error says what.
func (f *fault) Error() string { return f.why }

// list returns the files in the order of their names.
func (o *outputs) list(b *Box) (files []sandbox.File, err error) {
	var bytes int64
	var entries, names int
	limits := b.cfg.Limits
	err = fs.WalkDir(o.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if entries++; entries > limits.OutputFiles {
			return &fault{tasks.LimitOutput, fmt.Sprintf("left more than %d files and directories below /out", limits.OutputFiles)}
		}
		if !tasks.ValidName(name) {
			return &fault{why: fmt.Sprintf("left %.200q below /out, a name that not every system allows", name)}
		}
		if d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return &fault{why: fmt.Sprintf("left %.200q below /out, which is no ordinary file", name)}
		}
		bytes, names = bytes+info.Size(), names+len(name)+64
		if bytes > limits.OutputBytes || names > tasks.MaxOutputNames {
			return &fault{tasks.LimitOutput, fmt.Sprintf("left more than %d bytes, or too many names, below /out", limits.OutputBytes)}
		}
		files = append(files, b.spill(name, info.Size(), o))
		return nil
	})
	if err != nil {
		b.dropAll(files)
		return nil, err
	}
	return sorted(files), nil
}

// inline gives small files their bytes, as far as a result may carry them.
func (b *Box) inline(files []sandbox.File) {
	room := int64(tasks.InlineOutputBytes)
	for i, f := range files {
		if f.Size > room {
			continue
		}
		data, err := b.read(f)
		if err != nil {
			continue // whoever takes it finds out
		}
		room -= f.Size
		files[i] = sandbox.File{Name: f.Name, Size: f.Size, Data: data}
		b.DropOutput(f)
	}
}

func (b *Box) read(f sandbox.File) ([]byte, error) {
	b.mu.Lock()
	s := b.spills[f.Number()]
	b.mu.Unlock()
	data, err := s.from.root.ReadFile(s.name)
	if err == nil && int64(len(data)) != f.Size {
		err = errors.New("it has another size")
	}
	return data, err
}
