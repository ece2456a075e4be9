-- Return a subject's next nonce. ARGV[3]: the subject.
return text(nonce_of(ARGV[3]))
