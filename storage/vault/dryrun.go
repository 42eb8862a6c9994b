package vault

import (
	"context"
	"errors"
	"fmt"
)

// errDry is what Commit of a session that stores nothing gives.
var errDry = errors.New("a dry run makes no snapshot")

// BeginDry starts a session that stores nothing: Stats tell what a backup would
// add. It may run beside the one that writes, and ends with Abort.
func (v *Vault) BeginDry(ctx context.Context) (*Session, error) {
	if err := v.sync(ctx); err != nil {
		return nil, fmt.Errorf("bring index up to date: %w", err)
	}
	s := newSession(ctx, v)
	s.dry = true
	go s.commitPacks()
	return s, nil
}
