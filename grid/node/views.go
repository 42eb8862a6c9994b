package node

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/protobuf/proto"

	controlv1 "gotong/proto/control/v1"
	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/snapshot"
	"gotong/storage/vault"
)

const (
	// maxViews open at once.
	maxViews = 16
	// maxViewRead bounds one read, viewNodesBytes one message of entries.
	maxViewRead    = 1 << 20
	viewNodesBytes = 1 << 20
)

// views are the readers of those who mounted snapshots.
type views struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]*view
}

// view is used under its lock for reading and closed under it for writing.
type view struct {
	mu     sync.RWMutex
	reader *vault.Random // nil: closed
}

// View opens a view and closes it when the caller has gone.
func (s *service) View(_ *controlv1.ViewRequest, stream controlv1.Control_ViewServer) error {
	ctx := stream.Context()
	reader, err := s.peer.vault.NewRandom(context.WithoutCancel(ctx), 0)
	if err != nil {
		return s.peer.explainTooFew(err)
	}
	v := &view{reader: reader}
	defer v.close()
	id, err := s.peer.views.add(v)
	if err != nil {
		return err
	}
	defer s.peer.views.remove(id)
	if err := stream.Send(&controlv1.ViewOpened{View: id}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (v *view) close() {
	// Whoever reads holds the lock until its blobs are there or given up.
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reader.Close()
	v.reader = nil
}

func (all *views) add(v *view) (uint64, error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if len(all.open) >= maxViews {
		return 0, &Failure{Kind: controlv1.Kind_KIND_BUSY, What: "too many mounts at once", Meaning: "the others go on", Next: "unmount one"}
	}
	if all.open == nil {
		all.open = map[uint64]*view{}
	}
	all.last++
	all.open[all.last] = v
	return all.last, nil
}

func (all *views) remove(id uint64) {
	all.mu.Lock()
	defer all.mu.Unlock()
	delete(all.open, id)
}

// errNoView: the stream of the view has ended.
var errNoView = &Failure{Kind: controlv1.Kind_KIND_FAILED, What: "the mount was closed"}

// use calls f with the reader of a view.
func (all *views) use(id uint64, f func(*vault.Random) error) error {
	all.mu.Lock()
	v := all.open[id]
	all.mu.Unlock()
	if v == nil {
		return errNoView
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.reader == nil {
		return errNoView
	}
	return f(v.reader)
}

// ViewSnapshots lists what there is to view.
func (s *service) ViewSnapshots(ctx context.Context, r *controlv1.ViewSnapshotsRequest) (*controlv1.ViewSnapshotsResponse, error) {
	list, err := s.peer.viewable(ctx, r.Snapshot)
	if err != nil {
		return nil, s.peer.readFailure(r.Snapshot, err)
	}
	answer := &controlv1.ViewSnapshotsResponse{}
	for _, snap := range list {
		root := snap.Root.Proto()
		answer.Snapshots = append(answer.Snapshots, &controlv1.ViewSnapshot{
			Id: snap.ID[:], TimeUnixNano: snap.Created.UnixNano(), Host: snap.Host, Set: snap.Set, Tags: snap.Tags,
			Root: &controlv1.ViewRef{Depth: root.Depth, Hash: root.Hash, Size: root.Size},
		})
	}
	return answer, nil
}

func (p *Peer) viewable(ctx context.Context, name string) ([]vault.Snapshot, error) {
	if name == "" {
		return p.vault.Snapshots(ctx)
	}
	name, err := p.snapshotName(ctx, name)
	if err != nil {
		return nil, err
	}
	snap, err := p.vault.Find(ctx, name)
	return []vault.Snapshot{snap}, err
}

// viewRef reads a ref of the control API.
func viewRef(r *controlv1.ViewRef) (vault.Ref, error) {
	return vault.RefOf(&vaultv1.Ref{Depth: r.GetDepth(), Hash: r.GetHash(), Size: r.GetSize()})
}

// ViewEntries streams the entries of a directory.
func (s *service) ViewEntries(r *controlv1.ViewObject, stream controlv1.Control_ViewEntriesServer) error {
	listing, err := viewRef(r.Object)
	if err != nil {
		return err
	}
	return s.peer.views.use(r.View, func(reader *vault.Random) error {
		message, size := &controlv1.ViewNodes{}, 0
		err := snapshot.EntriesAt(stream.Context(), reader, listing, func(n *vaultv1.Node) error {
			encoded, err := proto.Marshal(n)
			if err != nil {
				return err
			}
			message.Nodes = append(message.Nodes, encoded)
			if size += len(encoded); size < viewNodesBytes {
				return nil
			}
			err = stream.Send(message)
			message, size = &controlv1.ViewNodes{}, 0
			return err
		})
		if err != nil {
			return s.peer.explainTooFew(err)
		}
		return stream.Send(message)
	})
}

// ViewRead reads a part of a file's content.
func (s *service) ViewRead(ctx context.Context, r *controlv1.ViewReadRequest) (*controlv1.ViewPiece, error) {
	object, err := viewRef(r.Object)
	if err != nil {
		return nil, err
	}
	piece := &controlv1.ViewPiece{Data: make([]byte, min(r.Length, maxViewRead))}
	err = s.peer.views.use(r.View, func(reader *vault.Random) error {
		n, err := reader.ReadAt(ctx, object, piece.Data, int64(r.Offset))
		piece.Data, piece.Fetched = piece.Data[:n], reader.Fetched()
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	})
	return piece, s.peer.explainTooFew(err)
}
