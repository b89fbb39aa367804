"""Files to results around one engine: image processes prepare and finish, the engine process batches and infers."""
