"""What people do today to stay within the quota, each as an engineer would write it in an afternoon."""
