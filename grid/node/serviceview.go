package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	controlv1 "gotong/proto/control/v1"
	"gotong/storage/snapshot"
	"gotong/storage/vault"
)

// setMark is between vault.Latest and the set whose newest snapshot is meant.
const setMark = "@"

// snapshotName turns a name that the user may write into one that the vault
// knows: latest@SET becomes an id. What follows a colon stays.
func (p *Peer) snapshotName(ctx context.Context, text string) (string, error) {
	name, at, hasPath := strings.Cut(text, ":")
	set, ok := strings.CutPrefix(name, vault.Latest+setMark)
	if !ok {
		return text, nil
	}
	list, err := p.vault.Snapshots(ctx)
	if err != nil {
		return "", p.explainTooFew(err)
	}
	last := newest(list, func(s vault.Snapshot) bool { return isChosen(s, set, nil) })
	if set == "" || last == nil {
		return "", &Failure{Kind: controlv1.Kind_KIND_USAGE, What: fmt.Sprintf("there is no snapshot of a set %q", set), Next: "gotong snapshots"}
	}
	if hasPath {
		return last.ID.String() + ":" + at, nil
	}
	return last.ID.String(), nil
}

// Ls streams the entries of a snapshot below a path.
func (s *service) Ls(r *controlv1.LsRequest, stream controlv1.Control_LsServer) error {
	name, err := s.peer.snapshotName(stream.Context(), r.Snapshot)
	if err != nil {
		return err
	}
	err = snapshot.List(stream.Context(), s.peer.vault, name, string(r.Path), r.Recursive, func(e snapshot.Entry) error {
		return stream.Send(entryMessage(e))
	})
	return s.peer.readFailure(r.Snapshot, err)
}

func entryMessage(e snapshot.Entry) *controlv1.LsEntry {
	return &controlv1.LsEntry{
		Path: []byte(e.Path), Type: e.Type, Mode: e.Mode, Size: e.Size, Mtime: e.ModTime.Unix(), MtimeNanos: uint32(e.ModTime.Nanosecond()),
		Uid: e.UID, Gid: e.GID, LinkTarget: []byte(e.Target),
	}
}

// Find streams the entries of snapshots that match.
func (s *service) Find(r *controlv1.FindRequest, stream controlv1.Control_FindServer) error {
	ctx := stream.Context()
	options := snapshot.FindOptions{Patterns: r.Patterns, IgnoreCase: r.IgnoreCase}
	for _, text := range r.Snapshots {
		name, err := s.peer.snapshotName(ctx, text)
		if err != nil {
			return err
		}
		options.Snapshots = append(options.Snapshots, name)
	}
	if r.Set != "" || len(r.Tags) > 0 {
		chosen, err := s.peer.chosenSnapshots(ctx, r.Set, r.Tags)
		if err != nil {
			return err
		}
		for i := len(chosen) - 1; i >= 0; i-- { // newest first, as without
			options.Snapshots = append(options.Snapshots, chosen[i].ID.String())
		}
		if len(options.Snapshots) == 0 {
			return nil
		}
	}
	err := snapshot.Find(ctx, s.peer.vault, options, func(f snapshot.Found) error {
		return stream.Send(&controlv1.FindMatch{Snapshot: f.Snapshot.ID.String(), TimeUnixNano: f.Snapshot.Created.UnixNano(), Entry: entryMessage(f.Entry)})
	})
	if errors.Is(err, snapshot.ErrPattern) {
		return usage(err.Error(), "gotong find --help")
	}
	return s.peer.readFailure(strings.Join(r.Snapshots, " "), err)
}

// chosenSnapshots returns the snapshots of a set, if one is named, that have all
// the tags, oldest first.
func (p *Peer) chosenSnapshots(ctx context.Context, set string, tags []string) ([]vault.Snapshot, error) {
	list, err := p.vault.Snapshots(ctx)
	if err != nil {
		return nil, p.explainTooFew(err)
	}
	var out []vault.Snapshot
	for _, s := range list {
		if isChosen(s, set, tags) {
			out = append(out, s)
		}
	}
	return out, nil
}

// Diff streams how two trees differ.
func (s *service) Diff(r *controlv1.DiffRequest, stream controlv1.Control_DiffServer) error {
	ctx := stream.Context()
	from, err := s.peer.snapshotName(ctx, r.From)
	if err != nil {
		return err
	}
	to, err := s.peer.snapshotName(ctx, r.To)
	if err != nil {
		return err
	}
	sum, err := snapshot.Diff(ctx, s.peer.vault, from, to, func(c snapshot.Change) error {
		change := &controlv1.DiffChange{Change: c.Kind, Path: []byte(c.Path)}
		if c.Old != nil {
			change.From = entryMessage(*c.Old)
		}
		if c.New != nil {
			change.To = entryMessage(*c.New)
		}
		return stream.Send(&controlv1.DiffEvent{Event: &controlv1.DiffEvent_Change{Change: change}})
	})
	if err != nil {
		return s.peer.readFailure(r.From, err)
	}
	return stream.Send(&controlv1.DiffEvent{Event: &controlv1.DiffEvent_Summary{Summary: &controlv1.DiffSummary{
		Added: sum.Added, Removed: sum.Removed, Content: sum.Content, Metadata: sum.Metadata, Types: sum.Types,
		AddedBytes: sum.AddedBytes, RemovedBytes: sum.RemovedBytes,
	}}})
}

// catPieceBytes is how much of a file one message has.
const catPieceBytes = 256 << 10

// Cat streams a file.
func (s *service) Cat(r *controlv1.CatRequest, stream controlv1.Control_CatServer) error {
	name, err := s.peer.snapshotName(stream.Context(), r.Snapshot)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(catStream{stream}, catPieceBytes)
	err = snapshot.Cat(stream.Context(), s.peer.vault, name, string(r.Path), out, 0, -1)
	if err == nil {
		err = out.Flush()
	}
	return s.peer.readFailure(r.Snapshot, err)
}

type catStream struct {
	stream controlv1.Control_CatServer
}

// Write sends b in messages of bounded size.
func (s catStream) Write(b []byte) (int, error) {
	for at := 0; at < len(b); at += catPieceBytes {
		if err := s.stream.Send(&controlv1.CatPiece{Data: b[at:min(at+catPieceBytes, len(b))]}); err != nil {
			return at, err
		}
	}
	return len(b), nil
}
