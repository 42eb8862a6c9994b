package snapshot

import (
	"errors"
	"fmt"
	"math"
	"time"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// ErrStdin says that what was to be backed up from a stream ended in an error.
var ErrStdin = errors.New("the stream to back up broke off")

// walkStdin emits the one file that is read from a stream, in the directories
// that its name has.
func (b *backup) walkStdin(t *rootTree) {
	t = t.children[0]
	now := time.Now()
	node := &vaultv1.Node{Name: []byte(t.name), Mtime: now.Unix(), MtimeNanos: uint32(now.Nanosecond())}
	if !t.backUp {
		node.Type, node.Mode = vaultv1.Node_DIRECTORY, 0o755
		b.dirs.Add(1)
		b.emit(&item{step: stepEnter, encode: node})
		b.walkStdin(t)
		b.emit(&item{step: stepLeave})
		return
	}
	node.Type, node.Mode = vaultv1.Node_FILE, 0o600
	it := &item{encode: node, ready: make(chan struct{})}
	if !b.emit(it) {
		return
	}
	select {
	case b.jobs <- it:
	case <-b.ctx.Done():
	}
}

// storeStdin stores the stream. Nobody can tell a broken stream from a short
// one later, so there is no snapshot of it.
func (b *backup) storeStdin(w *vault.Writer, it *item) error {
	object, err := w.Put(&countedReader{b.options.Stdin, &b.read}, math.MaxInt64)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStdin, err)
	}
	it.encode.Content, it.encode.Size = object.Ref.Proto(), object.Ref.Size
	return nil
}
