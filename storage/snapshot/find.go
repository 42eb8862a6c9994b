package snapshot

import (
	"context"
	"fmt"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage/vault"
)

// FindOptions says what to look for.
type FindOptions struct {
	// Snapshots are ids, beginnings of ids or vault.Latest; empty: all.
	Snapshots []string
	// Patterns are lines of gitignore, relative to "/": "*.jpg" in any directory,
	// "/home/me/**/2024". An entry that one matches is found.
	Patterns []string
	// IgnoreCase takes ASCII letters in either case.
	IgnoreCase bool
}

// Found is an entry of a snapshot.
type Found struct {
	Snapshot vault.Snapshot
	Entry    Entry
}

// Find calls fn with each entry that matches, snapshot by snapshot, newest
// first. Errors: ErrPattern, those of the vault, that of fn.
func Find(ctx context.Context, v *vault.Vault, options FindOptions, fn func(Found) error) error {
	wanted, err := parseRules(options.Patterns, options.IgnoreCase)
	if err != nil {
		return err
	}
	if len(wanted.list) == 0 {
		return fmt.Errorf("%w: there is none", ErrPattern)
	}
	snapshots, err := chosen(ctx, v, options.Snapshots)
	if err != nil {
		return err
	}
	reader, err := v.NewReader(ctx)
	if err != nil {
		return err
	}
	defer reader.Close()
	for _, s := range snapshots {
		root := &vaultv1.Node{Type: vaultv1.Node_DIRECTORY, Content: s.Root.Proto()}
		err := walkNodes(reader, root, "/", func(at string, n *vaultv1.Node) error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if found, _ := wanted.decide(at[1:], isDir(n)); found {
				if err := fn(Found{s, entryOf(at, n)}); err != nil {
					return err
				}
			}
			if isDir(n) && !wanted.mayDecideBelow(at[1:]+"/") {
				return errNotBelow
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", s.ID.Short(), err)
		}
	}
	return nil
}

// chosen returns the snapshots that are meant, newest first; all when none is
// named.
func chosen(ctx context.Context, v *vault.Vault, names []string) ([]vault.Snapshot, error) {
	var out []vault.Snapshot
	if len(names) == 0 {
		all, err := v.Snapshots(ctx)
		for i := range all {
			out = append(out, all[len(all)-1-i])
		}
		return out, err
	}
	for _, name := range names {
		s, err := v.Find(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
