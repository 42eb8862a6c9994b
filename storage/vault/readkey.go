package vault

import (
	"context"
	"time"

	"gotong/storage/seal"
)

// readKeyName is the place of a read key in a context.
type readKeyName struct{}

// WithReadKey returns a context under which snapshots can be opened on a
// write-only device: the vault uses the read key in secrets for calls with this
// context, and keeps nothing of it.
func WithReadKey(ctx context.Context, secrets seal.VaultSecrets) context.Context {
	return context.WithValue(ctx, readKeyName{}, secrets)
}

// readSecrets returns the secrets with which records are opened for one call:
// those of the device, or, when it has no read key, those that came with it.
func (v *Vault) readSecrets(ctx context.Context) seal.VaultSecrets {
	given, ok := ctx.Value(readKeyName{}).(seal.VaultSecrets)
	if v.secrets.CanRead() || !ok || given.Vault() != v.ID() {
		return v.secrets
	}
	return given
}

// ReadSecrets returns this vault's secrets with a read key that came from the
// phrase, for WithReadKey. The error is seal.ErrWrongReadKey.
func (v *Vault) ReadSecrets(key []byte) (seal.VaultSecrets, error) { return v.secrets.WithRead(key) }

// Newest returns the id of the newest snapshot and when it was made, for which
// the read key is not needed; zero values when there is none.
func (v *Vault) Newest(ctx context.Context) (id SnapshotID, created time.Time, err error) {
	if err := v.sync(ctx); err != nil {
		return SnapshotID{}, time.Time{}, err
	}
	entries, err := v.index.entries()
	if err != nil || len(entries) == 0 {
		return SnapshotID{}, time.Time{}, err
	}
	state, err := openHeadState(v.secrets, v.readFrom().Sealed)
	if err != nil {
		return SnapshotID{}, time.Time{}, err
	}
	return snapshotIDOf(entries[len(entries)-1].record), time.Unix(0, state.Newest), nil
}
