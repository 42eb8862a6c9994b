package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	controlv1 "gotong/proto/control/v1"
	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/mount"
	"gotong/storage/vault"
)

// viewTimeout bounds one read of a mount; friends may be slow.
const viewTimeout = 2 * time.Minute

// mountJSON is what a mount says when it begins and when it ends.
type mountJSON struct {
	Type    string `json:"type"` // mounted or summary
	Dir     string `json:"dir"`
	Read    uint64 `json:"bytes_read"`    // by programs, out of files
	Fetched uint64 `json:"bytes_fetched"` // from holders, for that
	Why     string `json:"why,omitempty"`
}

func (a *app) mountCommand() *cobra.Command {
	var snapshot string
	c := &cobra.Command{
		Use:   "mount DIR",
		Short: "Show snapshots as a read-only file system",
		Long: `Mount shows all snapshots below DIR, an empty directory, until it is interrupted:
by id in ids/, by time in snapshots/, by host, set and tag in hosts/, sets/ and
tags/, and the newest as latest. What is read is fetched from friends as it is
read. It needs FUSE, and fusermount3 for users other than root.`,
		Example: "  gotong mount ~/backups\n  gotong mount /mnt --snapshot latest",
		Args:    exactArgs(1),
	}
	c.Flags().StringVar(&snapshot, "snapshot", "", "show the files of this snapshot alone")
	c.RunE = func(c *cobra.Command, args []string) error {
		dir, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			return a.mount(ctx, peer, dir, snapshot)
		})
	}
	return c
}

// mount shows the snapshots until ctx or the peer ends or somebody unmounts.
func (a *app) mount(ctx context.Context, peer controlv1.ControlClient, dir, snapshot string) error {
	// The mount goes first, then what it reads from.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stream, err := peer.View(inner, &controlv1.ViewRequest{})
	if err != nil {
		return err
	}
	opened, err := stream.Recv()
	if err != nil {
		return err
	}
	source := &viewSource{peer: peer, view: opened.View, snapshot: snapshot}
	mounted, err := mount.Mount(inner, mount.NewTree(source, snapshot != ""), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return mountFailure(dir, err)
	}
	if a.json {
		err = a.printJSON(mountJSON{Type: "mounted", Dir: dir})
	} else {
		_, err = fmt.Fprintf(a.stdout, "Mounted at %s. Ctrl-C unmounts.\n", printable(dir))
	}
	gone := make(chan struct{})
	go func() {
		_, _ = stream.Recv() // ends with the peer
		close(gone)
	}()
	why, peerGone := "it was unmounted", false
	select {
	case <-mounted.Done():
	case <-ctx.Done():
		why = "interrupted"
	case <-gone:
		why, peerGone = "the peer stopped", true
	}
	cancel() // reads that hang would keep the mount in use
	if err := errors.Join(err, mounted.Unmount()); err != nil {
		return &failure{code: exitFailed, what: err.Error(), next: "fusermount3 -uz " + dir, cause: err}
	}
	if a.json {
		err = a.printJSON(mountJSON{Type: "summary", Dir: dir, Read: source.read.Load(), Fetched: source.fetched.Load(), Why: why})
	} else {
		_, err = fmt.Fprintf(a.stdout, "Unmounted %s: %s. %s were read, %s fetched for that.\n", printable(dir), why,
			bytesText(source.read.Load()), bytesText(source.fetched.Load()))
	}
	if err == nil && peerGone {
		return &failure{code: exitNotSetUp, what: "the peer stopped, so " + dir + " is not mounted any more", meaning: "the backups are untouched", next: "gotong up, then gotong mount again"}
	}
	return err
}

func mountFailure(dir string, err error) error {
	switch {
	case errors.Is(err, mount.ErrStale):
		return &failure{code: exitFailed, what: err.Error(), meaning: "nothing was mounted; the backups are untouched", next: "fusermount3 -u " + dir + ", then the same command again", cause: err}
	case errors.Is(err, mount.ErrPlace):
		return &failure{code: exitUsage, what: err.Error(), meaning: "nothing was mounted", next: "mkdir another directory, then gotong mount DIR", cause: err}
	case errors.Is(err, mount.ErrUnsupported):
		return &failure{code: exitFailed, what: err.Error(), meaning: "nothing was mounted; the backups are untouched",
			next: "gotong ls, gotong cat and gotong restore read snapshots without it", cause: err}
	}
	return err
}

// viewSource reads through the peer. It implements mount.Source.
type viewSource struct {
	peer          controlv1.ControlClient
	view          uint64
	snapshot      string
	read, fetched atomic.Uint64
}

// Snapshots implements mount.Source.
func (s *viewSource) Snapshots(ctx context.Context) ([]vault.Snapshot, error) {
	answer, err := s.peer.ViewSnapshots(ctx, &controlv1.ViewSnapshotsRequest{View: s.view, Snapshot: s.snapshot})
	if err != nil {
		return nil, err
	}
	var out []vault.Snapshot
	for _, m := range answer.Snapshots {
		root, err := vault.RefOf(&vaultv1.Ref{Depth: m.Root.GetDepth(), Hash: m.Root.GetHash(), Size: m.Root.GetSize()})
		if err != nil {
			return nil, err
		}
		snap := vault.Snapshot{Created: time.Unix(0, m.TimeUnixNano), Host: m.Host, Set: m.Set, Tags: m.Tags, Root: root}
		copy(snap.ID[:], m.Id)
		out = append(out, snap)
	}
	return out, nil
}

func viewRefOf(r vault.Ref) *controlv1.ViewRef {
	ref := r.Proto()
	return &controlv1.ViewRef{Depth: ref.Depth, Hash: ref.Hash, Size: ref.Size}
}

// Entries implements mount.Source.
func (s *viewSource) Entries(ctx context.Context, listing vault.Ref, fn func(*vaultv1.Node) error) error {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	stream, err := s.peer.ViewEntries(ctx, &controlv1.ViewObject{View: s.view, Object: viewRefOf(listing)})
	if err != nil {
		return err
	}
	return each(stream, func(m *controlv1.ViewNodes) error {
		for _, encoded := range m.Nodes {
			node := new(vaultv1.Node)
			if err := proto.Unmarshal(encoded, node); err != nil {
				return err
			}
			if err := fn(node); err != nil {
				return err
			}
		}
		return nil
	})
}

// ReadAt implements mount.Source.
func (s *viewSource) ReadAt(ctx context.Context, object vault.Ref, p []byte, off int64) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	for n < len(p) {
		piece, err := s.peer.ViewRead(ctx, &controlv1.ViewReadRequest{
			View: s.view, Object: viewRefOf(object), Offset: uint64(off) + uint64(n), Length: uint32(min(len(p)-n, 1<<20)),
		})
		if err != nil {
			return n, err
		}
		if len(piece.Data) == 0 {
			return n, io.EOF
		}
		s.fetched.Store(max(s.fetched.Load(), piece.Fetched))
		s.read.Add(uint64(len(piece.Data)))
		n += copy(p[n:], piece.Data)
	}
	return n, nil
}
