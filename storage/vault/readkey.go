package vault

import (
	"context"

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
