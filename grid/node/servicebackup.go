package node

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"gotong/grid/peernet"
	controlv1 "gotong/proto/control/v1"
	"gotong/storage/snapshot"
	"gotong/storage/vault"
)

// Backup makes a snapshot and streams how far it is.
func (s *service) Backup(stream controlv1.Control_BackupServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return errNoStart
	}
	job, err := s.peer.newBackupJob(start)
	if err != nil {
		return err
	}
	input := backupInput{next: stream.Recv}
	if start.Files {
		if job.paths, err = input.files(); err != nil {
			return err
		}
	}
	if start.StdinName != "" {
		job.stdin = &input
	}
	out := &eventSink[controlv1.BackupEvent]{send: stream.Send}
	job.progress = func(p *controlv1.BackupProgress) {
		out.put(&controlv1.BackupEvent{Event: &controlv1.BackupEvent_Progress{Progress: p}})
	}
	job.skipped = func(path string, err error) {
		out.put(&controlv1.BackupEvent{Event: &controlv1.BackupEvent_Skipped{Skipped: skippedItem(path, err)}})
	}
	job.warned = func(path string, err error) {
		out.put(&controlv1.BackupEvent{Event: &controlv1.BackupEvent_Warned{Warned: skippedItem(path, err)}})
	}
	summary, err := s.peer.backUp(stream.Context(), job)
	if err != nil {
		return err
	}
	return out.put(&controlv1.BackupEvent{Event: &controlv1.BackupEvent_Summary{Summary: summary}})
}

// Restore writes a snapshot and streams how far it is.
func (s *service) Restore(r *controlv1.RestoreRequest, stream controlv1.Control_RestoreServer) error {
	out := &eventSink[controlv1.RestoreEvent]{send: stream.Send}
	job, err := newRestoreJob(r)
	if err != nil {
		return err
	}
	rates := s.peer.watchRates(func(t peernet.Traffic) uint64 { return t.Received })
	job.options.Progress = func(p snapshot.Progress) {
		out.put(&controlv1.RestoreEvent{Event: &controlv1.RestoreEvent_Progress{Progress: &controlv1.RestoreProgress{
			Files: p.Files, Bytes: p.Bytes, DuplicateBytes: p.DuplicateBytes, TotalFiles: p.TotalFiles, TotalBytes: p.TotalBytes,
			Holders: rates.now(time.Now()),
		}}})
	}
	job.options.Skipped = func(path string, err error) {
		out.put(&controlv1.RestoreEvent{Event: &controlv1.RestoreEvent_Skipped{Skipped: skippedItem(path, s.peer.explainTooFew(err))}})
	}
	if r.Items {
		job.options.Done = func(action, path string) {
			out.put(&controlv1.RestoreEvent{Event: &controlv1.RestoreEvent_Item{Item: &controlv1.RestoreItem{Action: action, Path: []byte(path)}}})
		}
	}
	summary, err := s.peer.restore(stream.Context(), job)
	if err != nil {
		return err
	}
	return out.put(&controlv1.RestoreEvent{Event: &controlv1.RestoreEvent_Summary{Summary: summary}})
}

// eventSink lets callbacks from several goroutines share one stream. After the
// first error the command is gone and nothing more is sent; its context ends
// the work.
type eventSink[T any] struct {
	send func(*T) error

	mu  sync.Mutex
	err error
}

func (s *eventSink[T]) put(event *T) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = s.send(event)
	}
	return s.err
}

// skippedItem says what was left out. Messages carry UTF-8; other bytes of a
// name are shown escaped.
func skippedItem(path string, err error) *controlv1.SkippedItem {
	return &controlv1.SkippedItem{Path: validText(path), Why: validText(plainReason(err))}
}

func wantAbsolute(paths ...string) error {
	for _, path := range paths {
		if !filepath.IsAbs(path) {
			return &Failure{Kind: controlv1.Kind_KIND_USAGE, What: fmt.Sprintf("%q is not an absolute path", path)}
		}
	}
	return nil
}

// Snapshots lists the snapshots of the vault, oldest first.
func (s *service) Snapshots(ctx context.Context, r *controlv1.SnapshotsRequest) (*controlv1.SnapshotsResponse, error) {
	if r.All {
		return s.peer.allSnapshots(ctx, r)
	}
	list, err := s.peer.chosenSnapshots(ctx, r.Set, r.Tags)
	out := &controlv1.SnapshotsResponse{}
	for _, snap := range list {
		out.Snapshots = append(out.Snapshots, snapshotMessage(snap))
	}
	return out, err
}

// AllSnapshots returns the snapshots of this peer's vault, oldest first, and
// those that only older heads have, as far as friends keep them.
func (p *Peer) AllSnapshots(ctx context.Context) ([]vault.HistoricSnapshot, error) {
	all, err := p.vault.AllSnapshots(ctx)
	return all, p.explainTooFew(err)
}

// allSnapshots lists those of older heads too, as far as friends keep them.
func (p *Peer) allSnapshots(ctx context.Context, r *controlv1.SnapshotsRequest) (*controlv1.SnapshotsResponse, error) {
	all, err := p.AllSnapshots(ctx)
	if err != nil {
		return nil, err
	}
	out := &controlv1.SnapshotsResponse{}
	for _, snap := range all {
		if isChosen(snap.Snapshot, r.Set, r.Tags) {
			message := snapshotMessage(snap.Snapshot)
			message.Forgotten, message.Head = snap.Forgotten, snap.Head
			out.Snapshots = append(out.Snapshots, message)
		}
	}
	return out, nil
}

// isChosen reports whether a snapshot is of a set, if one is named, and has all
// the tags.
func isChosen(s vault.Snapshot, set string, tags []string) bool {
	if set != "" && s.Set != strings.ToLower(set) {
		return false
	}
	return !slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(s.Tags, tag) })
}

func snapshotMessage(s vault.Snapshot) *controlv1.Snapshot {
	out := &controlv1.Snapshot{
		Id: s.ID.String(), TimeUnixNano: s.Created.UnixNano(), Host: s.Host, Files: s.Files, Dirs: s.Directories, Bytes: s.Bytes,
		Skipped: s.Skipped, Set: s.Set,
	}
	for _, tag := range s.Tags {
		out.Tags = append(out.Tags, validText(tag))
	}
	for _, path := range s.Paths {
		out.Paths = append(out.Paths, validText(path))
	}
	return out
}
