package node

import (
	"context"
	"fmt"

	controlv1 "gotong/proto/control/v1"
	"gotong/storage/snapshot"
	"gotong/storage/vault"
)

// Check looks whether all that the snapshots need is there. It hands out each
// problem that it found before it returns.
func (p *Peer) Check(ctx context.Context, readData float64, progress func(*controlv1.WorkProgress), problem func(string)) (*controlv1.CheckSummary, error) {
	if readData < 0 || readData > 1 {
		return nil, usage(fmt.Sprintf("%g is no share of the data", readData), "gotong check --read-data=10%")
	}
	r, err := p.vault.Check(ctx, vault.CheckOptions{ReadData: readData, Progress: func(now vault.CheckProgress) {
		progress(&controlv1.WorkProgress{Doing: now.Step, Done: now.Done, Total: now.Total})
	}})
	if err != nil {
		return nil, p.explainTooFew(err)
	}
	for _, text := range r.Problems {
		problem(validText(text))
	}
	return &controlv1.CheckSummary{
		Segments: r.Segments, Healthy: r.Healthy, Degraded: r.Degraded, Lost: r.Lost, ShardsChecked: r.ShardsChecked, ShardsBad: r.ShardsBad,
		Seconds: r.Took.Seconds(), Snapshots: r.Snapshots, Blobs: r.Blobs, SegmentsRead: r.SegmentsRead, BlobsRead: r.BlobsRead,
		BytesRead: r.BytesRead, Silent: r.Silent, Problems: r.Count, NoReadKey: r.NoReadKey,
	}, nil
}

// Stats counts what the vault holds, or what is at SNAPSHOT[:PATH]; each also
// finds out what each snapshot of the vault alone needs.
func (p *Peer) Stats(ctx context.Context, text string, each bool) (*controlv1.StatsResponse, error) {
	if text == "" {
		return p.vaultStats(ctx, each)
	}
	name, err := p.snapshotName(ctx, text)
	if err != nil {
		return nil, err
	}
	s, err := snapshot.Stats(ctx, p.vault, name)
	if err != nil {
		return nil, p.readFailure(text, err)
	}
	tree := &controlv1.TreeStats{
		Files: s.Files, Dirs: s.Directories, Symlinks: s.Symlinks, Specials: s.Specials, Bytes: s.Bytes, HardLinks: s.HardLinks,
		SparseFiles: s.SparseFiles, HoleBytes: s.HoleBytes,
	}
	if s.LargestFile.Path != "" {
		tree.Largest = entryMessage(s.LargestFile)
	}
	return &controlv1.StatsResponse{Tree: tree}, nil
}

func (p *Peer) vaultStats(ctx context.Context, each bool) (*controlv1.StatsResponse, error) {
	t, err := p.vault.Stats(ctx)
	if err != nil {
		return nil, p.explainTooFew(err)
	}
	waiting, err := p.vault.PendingDeletions()
	if err != nil {
		return nil, err
	}
	stats := &controlv1.VaultStats{
		Snapshots: t.Snapshots, LogicalBytes: t.LogicalBytes, Blobs: t.Blobs, UniqueBytes: t.UniqueBytes, SealedBytes: t.SealedBytes,
		Segments: t.Segments, SegmentBytes: t.SegmentBytes, StoredBytes: t.StoredBytes, WasteBytes: t.Waste, IndexBytes: t.IndexBytes,
		Waiting: uint64(waiting.Held + waiting.Sent),
	}
	if !each {
		return &controlv1.StatsResponse{Vault: stats}, nil
	}
	alone, err := p.vault.Alone(ctx)
	if err != nil {
		return nil, p.readFailure("the snapshots", err)
	}
	for _, s := range alone {
		stats.Each = append(stats.Each, &controlv1.AloneBytes{Id: s.ID.String(), TimeUnixNano: s.Created.UnixNano(), SealedBytes: s.Sealed, StoredBytes: s.Stored})
	}
	return &controlv1.StatsResponse{Vault: stats}, nil
}
