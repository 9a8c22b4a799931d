package storage

import "context"

// Size gives the bytes that a repository holds: each blob and manifest once. What other repositories hold as well counts in
// each. The first call for a repository reads all its links.
func (s *Store) Size(ctx context.Context, repository string) (int64, error) {
	if err := CheckName(repository); err != nil {
		return 0, err
	}
	s.mu.Lock()
	size, known := s.sizes[repository]
	s.mu.Unlock()
	if known {
		return size, nil
	}
	defer s.turns.alone(repository)() // nothing comes or goes while we add up
	total, err := s.add(ctx, repository)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[repository] {
		s.sizes[repository] = total
	}
	return total, nil
}

func (s *Store) add(ctx context.Context, repo string) (int64, error) {
	total := int64(0)
	links := values(s, ctx, repoKey(repo, "blobs"), func(ctx context.Context, key string) (link, error) {
		var l link
		err := s.readJSON(ctx, key, &l)
		return l, err
	})
	for l, err := range links {
		if err != nil {
			return 0, err
		}
		total += l.Size
	}
	for r, err := range s.records(ctx, repo) {
		if err != nil {
			return 0, err
		}
		total += r.Size
	}
	return total, nil
}

func (s *Store) addSize(repo string, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size, known := s.sizes[repo]; known {
		s.sizes[repo] = size + n
	}
}
